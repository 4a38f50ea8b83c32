"""The jinja environment of servers (transformers' `apply_chat_template`), in which no template runs on for ever.

Sandboxed, messages cannot be changed, trimmed blocks, loop controls, `raise_exception`, `strftime_now`, a `tojson`
that neither escapes HTML nor sorts keys, and `{% generation %}`, which leaves the text as it is. Before a template is
compiled its loops, macros, comparisons and slices are made to count what they use (limits.py); nothing is computed
while compiling. What is for web pages and of no use in a chat (`urlize`, `striptags`, `wordwrap`, `xmlattr`, `lipsum`)
is not there: a template that wants it is refused.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import GeneratorType
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes as nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
from jinja2.visitor import NodeTransformer

from qdata.tokens import limits
from qdata.tokens.probe import ObservedError, Probe

_MISSING = ("urlize", "striptags", "wordwrap", "xmlattr")

# Filters that count for a template; their names cannot be written in one.
_STEP, _SIZED, _SEARCHED, _WEIGHED = "spend steps", "pay its length", "pay a search", "pay its weight"
_CONCAT = "concatenate"

# Filters that look at a value's length or a few of its items; that hand its items on; and that do something with each.
# All others may make a text of the value or compare what is in it.
_CHEAP = {"length", "count", "first", "last", "default", "d"}
_SHALLOW = {"list", "items", "reverse", "batch", "slice", "attr"}
_EACH = {"map", "select", "reject", "selectattr", "rejectattr"}
_COMPARING = ("==", "eq", "equalto", "!=", "ne", "<", "lt", "lessthan", ">", "gt", "greaterthan", "<=", "le")


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The text a template makes of its variables.

    Raises jinja2.TemplateError where it complains, is no template or wants too much, and whatever else a template
    provokes (TypeError, ZeroDivisionError, …).
    """
    template = compiled(source)
    limits.begin()
    try:
        return template.render(variables)
    except (RecursionError, MemoryError, OverflowError) as error:
        raise limits.LimitError(f"too deep or too large ({type(error).__name__}: {error})") from None


def parse(source: str) -> nodes.Template:
    """The syntax tree as it is written. Raises jinja2.TemplateSyntaxError."""
    return _environment().parse(source)


@functools.lru_cache(maxsize=16)
def compiled(source: str) -> jinja2.Template:
    """The compiled template. Raises jinja2.TemplateError, with a line where one is to blame."""
    if len(source) > limits.SOURCE:
        raise limits.LimitError(f"a template of {len(source):,} characters; wanted at most {limits.SOURCE:,}")
    limits.begin()
    try:
        return _environment().from_string(source)
    except (RecursionError, MemoryError, OverflowError, SyntaxError, ValueError) as error:
        raise limits.LimitError(f"it cannot be compiled ({type(error).__name__}: {error})") from None


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, with which transformers marks answers: the text in it, no more."""

    tags = {"generation"}  # noqa: RUF012  the name and type are jinja's

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Metered(NodeTransformer):
    """Makes a parsed template count: what it says stays the same."""

    def _body(self, node: Any) -> Any:
        call = 1 if isinstance(node, nodes.For) else 6  # what calling takes beside what is in it
        price = nodes.Const(call + sum(1 for _ in node.find_all(nodes.Node)) // 32)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(price, _STEP, node), lineno=node.lineno))
        if isinstance(node, nodes.For) and node.test is not None:  # asked of items that never reach the body
            node.test = nodes.And(_filter(price, _STEP, node), node.test, lineno=node.lineno)
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _body  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _CONCAT, node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, _SIZED, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if len(node.ops) == 1:  # a comparison with what is written here ends soon
            (operand,) = node.ops
            if operand.op in ("in", "notin"):
                if isinstance(node.expr, nodes.Const):
                    operand.expr = _filter(operand.expr, _SEARCHED, node)
                    return node
                if isinstance(operand.expr, (nodes.List, nodes.Tuple)) and _written(operand.expr.items):
                    return node
            elif _written((node.expr,)) or _written((operand.expr,)):
                return node
        node.expr = _filter(node.expr, _WEIGHED, node)
        for operand in node.ops:
            operand.expr = _filter(operand.expr, _WEIGHED, node)
        return node


def _written(values: Iterable[nodes.Expr]) -> bool:
    return all(isinstance(value, nodes.Const) for value in values)


def _filter(value: nodes.Expr, name: str, at: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=at.lineno, environment=at.environment)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))
    concat = staticmethod(limits.joined)  # of the whole text, of macros and of captured blocks

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        if (size := sum(1 for _ in source.find_all(nodes.Node))) > limits.NODES:
            raise limits.LimitError(f"a template of {size:,} parts; wanted at most {limits.NODES:,}")
        return super()._generate(_Metered().visit(source), *args, **kwargs)

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator != "+":
            if operator == "%" and isinstance(left, str):
                _refuse_probes(right, "%")
            limits.operands(operator, left, right)
        result = self.binop_table[operator](left, right)
        return result if type(result) is str and len(result) < limits.LONG_TEXT else limits.sized(result)

    def call(__self, __context: jinja2.runtime.Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        method = __obj
        if (receiver := getattr(method, "__self__", None)) is None:  # str.format comes wrapped
            method = getattr(__obj, "__wrapped__", None)
            receiver = getattr(method, "__self__", None)
        if isinstance(receiver, (str, bytes, int)):
            limits.sized(receiver)
            if method.__name__ == "join" and args:
                args = (_listed(args[0]), *args[1:])
            limits.growth(method.__name__, receiver, args, kwargs)
        elif isinstance(receiver, (list, tuple)):
            limits.weighed([receiver, args])  # index and count compare
        return limits.sized(super().call(__context, __obj, *args, **kwargs))

    # The two below answer as the sandbox does, only faster, for what templates ask most; that pays for the counting.

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute not in _OF_DICT:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if type(obj) in (str, jinja2.runtime.LoopContext):
            return not attr.startswith("_")
        return super().is_safe_attribute(obj, attr, value)


_OF_DICT = frozenset(dir(dict))


def _finalize(value: Any) -> Any:
    """A value to be written; texts are counted where they are joined."""
    return value if isinstance(value, str) else limits.weighed(value)


class _Namespace(jinja2.utils.Namespace):
    """As servers have it: no names that begin with `_`; and printing one tells nothing."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}: the name begins with an underscore")


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _Generation],
        optimized=False,
        finalize=_finalize,
    )
    environment.filters["tojson"] = _tojson
    for name in _MISSING:
        del environment.filters[name]
    environment.filters = {n: f if n in _CHEAP else _bounded(n, f) for n, f in environment.filters.items()}
    environment.filters |= {_STEP: limits.spend, _SIZED: limits.sized, _SEARCHED: limits.searched}
    environment.filters |= {_WEIGHED: limits.weighed, _CONCAT: _concat}
    environment.tests |= {n: _comparing(environment.tests[n]) for n in (*_COMPARING, ">=", "ge", "in")}
    environment.tests |= {n: _dividing(environment.tests[n]) for n in ("odd", "even", "divisibleby")}
    del environment.globals["lipsum"]
    environment.globals |= {
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for what it is given and makes, and does not make what is too long."""
    place = 1 if hasattr(function, "jinja_pass_arg") else 0  # before it comes what jinja passes

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        value = args[place]
        if name in ("join", "sum"):
            value = _listed(value)
            args = (*args[:place], value, *args[place + 1 :])
        if name in _SHALLOW:
            limits.sized(value)
        elif name in _EACH:
            limits.spend(len(value) if isinstance(value, (str, list, tuple, dict)) else 1)
        elif not isinstance(value, Probe):
            limits.weighed(value)
        limits.growth(name, value, args[place + 1 :], kwargs)
        return limits.sized(function(*args, **kwargs))

    return bounded


def _listed(value: Any) -> Any:
    """What a generator yields, as a list that can be weighed."""
    if not isinstance(value, (GeneratorType, map, filter)):
        return value
    out = []
    for one in value:
        limits.spend(1)
        out.append(one)
    return out


def _comparing(function: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    def comparing(*args: Any) -> Any:
        for one in args:
            limits.weighed(one)
        return function(*args)

    return comparing


def _dividing(function: Any) -> Callable[..., Any]:
    """Of texts, `%` is formatting."""

    @functools.wraps(function)
    def dividing(value: Any, *args: Any) -> Any:
        limits.operands("%", value, args)
        return function(value, *args)

    return dividing


@jinja2.pass_eval_context
def _concat(context: nodes.EvalContext, parts: list[Any]) -> str:
    limits.weighed(parts)
    return jinja2.runtime.markup_join(parts) if context.autoescape else limits.joined(map(str, parts))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    _refuse_probes(value, "tojson")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse_probes(value: Any, what: str) -> None:
    """json.dumps and formatting read strings behind their back: a probe (probe.py) would not notice."""
    if isinstance(value, Probe):
        raise ObservedError(what)
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for one in value:
        _refuse_probes(one, what)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)

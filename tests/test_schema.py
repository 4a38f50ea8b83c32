"""CONVERSATION: `conform` fills and orders, `content_hash` is of what is said and of nothing else.

The strategies that make conversations are used by the tests of formats and steps too.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata import schema

NASTY = '"\\/\b\f\n\r\t\x00\x01\x1f\x7f\u0085\u2028\ufeff\U0001f600你好{}[]$<>, '
TEXT = st.text(NASTY, max_size=8) | st.text(max_size=6)
WEIGHTS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 10.0, 123.456])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), FLOATS, TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def json_text(value: Any) -> str:
    """JSON as it is held in text columns: no spaces, no escapes that are not needed."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _calls(arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    call = st.fixed_dictionaries({"name": TEXT, "arguments": arguments})
    return st.lists(call, min_size=1, max_size=2).map(json_text)


PLAIN_CALLS = _calls(st.dictionaries(TEXT, TEXT, max_size=2))  # as every dialect of calls has them
CALLS = PLAIN_CALLS | _calls(TEXT)
TOOLS = st.lists(st.fixed_dictionaries({"name": TEXT, "parameters": st.just({})}), min_size=1, max_size=2)


def turn(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    """A message with every field of MESSAGE, null where nothing is given."""
    return dict.fromkeys(f.name for f in schema.MESSAGE.fields) | {"role": role, "content": content} | more


@st.composite
def turns(draw: st.DrawFn, roles: Sequence[str] = schema.ROLES) -> dict[str, Any]:
    """Any message that is one: an answer has content or calls, every other turn has content."""
    role = draw(st.sampled_from(roles))
    optional = {
        "reasoning": st.none() | TEXT,
        "name": st.none() | TEXT,
        "train": st.none() | st.booleans(),
        "weight": st.none() | WEIGHTS,
    }
    more = draw(st.fixed_dictionaries({}, optional=optional))
    calls = draw(st.none() | CALLS) if role == "assistant" else None
    return turn(role, draw(st.none() | TEXT if calls else TEXT), tool_calls=calls, **more)


PLAIN_EXCHANGES = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=2).map(
    lambda pairs: [t for user, answer in pairs for t in (turn("user", user), turn("assistant", answer))]
)
PLAIN = st.tuples(st.lists(TEXT.map(lambda text: turn("system", text)), max_size=1), PLAIN_EXCHANGES).map(
    lambda both: both[0] + both[1]
)
MESSAGES = st.lists(turns(), min_size=1, max_size=4) | PLAIN


def conversation(messages: Sequence[dict[str, Any]] | None, **more: Any) -> dict[str, Any]:
    """A CONVERSATION row; what is not given is null."""
    return dict.fromkeys(schema.CONVERSATION) | {"row": "s/f#1", "source": "s", "messages": messages} | more


@st.composite
def conversations(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of every kind: chat, preference, KTO, pretraining text, and rows a reader could not read."""
    pair = st.none() | st.lists(turns(("assistant",)), min_size=1, max_size=1)
    return conversation(
        draw(MESSAGES | st.none()),
        tools=draw(st.none() | TOOLS.map(json_text)),
        chosen=draw(pair),
        rejected=draw(pair),
        label=draw(st.none() | st.booleans()),
        text=draw(st.none() | TEXT),
    )


def frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a CONVERSATION frame."""
    return pl.DataFrame(list(rows), schema=schema.CONVERSATION)


def slow_json(row: dict[str, Any]) -> str:
    """The canonical JSON by the standard library: null fields left out, order of the schema, no spaces."""

    def said(messages: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        return messages and [{k: v for k, v in m.items() if v is not None} for m in messages]

    told = {name: row[name] for name in ("messages", "tools", "chosen", "rejected", "label", "text")}
    told |= {name: said(told[name]) for name in ("messages", "chosen", "rejected")}
    return json_text({k: v for k, v in told.items() if v is not None})


def slow_hash(row: dict[str, Any]) -> str:
    return hashlib.blake2b(slow_json(row).encode(), digest_size=16).hexdigest()


@settings(max_examples=60, deadline=None)
@given(st.lists(conversations(), min_size=1, max_size=4))
def test_content_hash_equals_the_slow_road(rows: list[dict[str, Any]]) -> None:
    """json.dumps + hashlib, row by row, gives the same text and hash as the vectorised road."""
    made = frame(rows)
    assert made.select(schema.canonical_json().alias("c"))["c"].to_list() == [slow_json(row) for row in rows]
    assert schema.with_content_hash(made)["content_hash"].to_list() == [slow_hash(row) for row in rows]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(PLAIN, min_size=1, max_size=4),
    st.sampled_from(["reasoning", "name", "tool_calls"]),
    st.sampled_from(["text", "tools", "chosen", "rejected"]),
    st.booleans(),
    TEXT,
)
def test_content_hash_is_the_same_where_all_rows_have_the_same_fields(
    said: list[list[dict[str, Any]]], field: str, column: str, is_missing_once: bool, text: str
) -> None:
    """Which is the quick way; and where the last row or message lacks what all others have."""
    also = [turn("assistant", text)] if column in ("chosen", "rejected") else text
    rows = [conversation([m | {field: text} for m in messages], **{column: also}) for messages in said]
    if is_missing_once:
        rows[-1]["messages"][-1][field] = None
    for some in (rows, [row | {column: None} for row in rows], [*rows, rows[0] | {column: None}]):
        hashed = schema.with_content_hash(frame(some))["content_hash"].to_list()
        assert hashed == [slow_hash(row) for row in some]


def test_every_character_is_escaped_as_the_standard_library_does() -> None:
    """polars' escapes are part of our hashes: none of them may change with its version."""
    texts = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    made = schema.conform(pl.LazyFrame({"text": texts})).select(c=schema.canonical_json()).collect()["c"]
    assert made.to_list() == [json_text({"text": text}) for text in texts]
    rows = frame([conversation([turn("user", "".join(texts))])])
    assert schema.with_content_hash(rows)["content_hash"].item() == slow_hash(rows.row(0, named=True))


@settings(max_examples=50, deadline=None)
@given(st.lists(turns(), min_size=1, max_size=3), FLOATS)
def test_canonical_json_is_json(messages: list[dict[str, Any]], weight: float) -> None:
    """Any weight, any text: what is hashed parses back to the very same messages."""
    messages[0]["weight"] = weight
    text = frame([conversation(messages)]).select(schema.messages_json("messages")).item()
    assert [turn(**({"content": None} | message)) for message in json.loads(text)] == messages


@settings(max_examples=40, deadline=None)
@given(conversations(), conversations(), TEXT, JSON, st.floats(0, 10))
def test_content_hash_is_of_the_content(
    one: dict[str, Any], other: dict[str, Any], text: str, extra: Any, score: float
) -> None:
    """Equal contents, equal hashes, whatever row, source, score, drop and extra say; unequal ones differ."""
    elsewhere = one | {"row": text, "source": text, "content_hash": text, "drop": text}
    elsewhere |= {"extra": json_text({"x": extra}), "score": {"given": score}}
    first, same, second = schema.with_content_hash(frame([one, elsewhere, other]))["content_hash"]
    assert first == same
    assert (first == second) == (slow_json(one) == slow_json(other))


def test_content_hash_never_changes() -> None:
    """It names rows across machines and versions; the value is what `b2sum -l 128` says of the text."""
    row = conversation([turn("user", '你好 \u0007\n"q" \U0001f600'), turn("assistant", "a", weight=0.5, train=False)])
    assert slow_json(row) == (
        '{"messages":[{"role":"user","content":"你好 \\u0007\\n\\"q\\" \U0001f600"},'
        '{"role":"assistant","content":"a","train":false,"weight":0.5}]}'
    )
    assert schema.with_content_hash(frame([row]))["content_hash"][0] == "c8390fe4b3fb9a1b860390c54847108e"


def test_a_single_field_changes_the_hash() -> None:
    """Every field of content counts: null is not empty, no answer is not an empty one."""
    base = [turn("user", "q"), turn("assistant", "a")]
    rows = [conversation(base), conversation(base[:1]), conversation(base, text=""), conversation(base, label=False)]
    rows += [conversation(base, tools="[]"), conversation(base, chosen=base), conversation(base, rejected=base)]
    for field, value in (("content", ""), ("reasoning", ""), ("tool_calls", "[]"), ("name", ""), ("train", True),
                         ("weight", 1.0), ("role", "user")):  # fmt: skip
        rows.append(conversation([base[0], base[1] | {field: value}]))
    assert schema.with_content_hash(frame(rows))["content_hash"].n_unique() == len(rows)


@settings(max_examples=40, deadline=None)
@given(
    st.permutations(list(schema.CONVERSATION)),
    st.integers(1, len(schema.CONVERSATION)),
    st.permutations(["role", "content", "reasoning", "tool_calls", "name", "train", "weight"]),
    st.integers(1, 7),
    st.lists(st.lists(turns(), max_size=3) | st.none(), min_size=1, max_size=3),
)
def test_conform_fills_and_orders(
    columns: list[str], n: int, fields: list[str], m: int, messages: list[list[dict[str, Any]] | None]
) -> None:
    """Any part of the columns, in any order, with any part of the message fields, becomes the whole schema."""
    some = pl.List(pl.Struct({f.name: f.dtype for f in schema.MESSAGE.fields if f.name in fields[:m]}))
    dtypes = {c: some if t == schema.MESSAGES else t for c, t in schema.CONVERSATION.items()}
    cut = [None if x is None else [{k: v for k, v in t.items() if k in fields[:m]} for t in x] for x in messages]
    values = {c: cut if dtypes[c] == some else [None] * len(messages) for c in columns[:n]}
    made = schema.conform(pl.LazyFrame(values, schema={c: dtypes[c] for c in columns[:n]})).collect()
    assert made.schema == schema.CONVERSATION
    assert made.height == len(messages)
    for name in schema.CONVERSATION:
        filled = [None if x is None else [turn(**({"role": None, "content": None} | t)) for t in x] for x in cut]
        wanted = filled if name in values and dtypes[name] == some else [None] * len(messages)
        assert made[name].to_list() == wanted
    assert schema.conform(made.lazy()).collect().equals(made), "conform is idempotent"


def test_conform_drops_what_is_not_in_the_schema() -> None:
    """Working columns of a reader do not leak out; a scorer's field beside `given` stays."""
    made = pl.DataFrame({"ordinal": [1], "row": ["a"], "score": [{"given": 1.0, "ifd": 0.5}]}).lazy()
    out = schema.conform(made).collect()
    assert out.columns == list(schema.CONVERSATION)
    assert out["score"].to_list() == [{"given": 1.0, "ifd": 0.5}]


def test_message_builds_what_conform_completes() -> None:
    """`message` makes the two fields every message has, as text."""
    made = pl.DataFrame({"q": [1]}).lazy().select(messages=pl.concat_list(schema.message("user", pl.col("q"))))
    assert schema.conform(made).collect()["messages"].to_list() == [[turn("user", "1")]]

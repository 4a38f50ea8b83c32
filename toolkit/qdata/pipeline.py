"""The story, read top to bottom: sources → parts → steps → render → tokenize → global steps → pack → shards.

`build` makes shards, `convert` (convert.py) makes rows of another dialect; both start with the same plan of inputs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from qdata import aside, assemble, decide, plugin, report, schema
from qdata.engine import local
from qdata.errors import QdataError
from qdata.part import NAMED, Done, Work, kind_named, process
from qdata.paths import cache_dir, shown, whole
from qdata.recipe import DataRecipe, Source
from qdata.rows import catalog, detect, draw, formats, hints, kinds, provenance, source
from qdata.rows.draw import Draw
from qdata.rows.parts import Part
from qdata.stepping import global_steps, local_steps, refuse_unknown_scores
from qdata.tokens import locate
from qdata.tokens.encoder import TOKENIZERS, DifferentIdsError, choose
from qdata.tokens.kind import Rendering
from qdata.tokens.template import Template, of_tokenizer, special_tokens

Result = TypeVar("Result")


@dataclass(frozen=True)
class Found:
    """An input file, and its dialect told by its rows."""

    input: catalog.Input
    detection: detect.Detection

    @property
    def samples(self) -> list[str]:
        """The data sets of which this file is only the shipped sample, or was made from it."""
        if self.input.sample:
            return [self.input.source]
        beside = provenance.manifest_beside(self.input.path)
        return sorted({one["source"] for one in beside["inputs"] if one["sample"]}) if beside else []


def find(sources: Sequence[Source], base: Path = Path()) -> list[Found]:
    """Resolves sources to files and recognises their dialects. Raises QdataError when one cannot be.

    A dialect that the user or the catalogue names is not believed either: the rows must speak it.
    """
    found = []
    for one in catalog.resolve(sources, base):
        if one.format:
            plugin.find(formats, one.format)  # a misspelt name is refused before any work
        knows = functools.partial(detect.knows, rename=one.rename, only=one.format)
        head = source.peek(one.path, one.source, one.relative, documents=one.documents, knows=knows)
        if head.bad and not head.rows:
            container = next(source.parts_of(one.path, one.source, one.relative, documents=one.documents)).container
            first = head.bad[:NAMED]  # how many there are, peeking does not tell
            told_of = aside.unreadable(one.path, container, first, len(first))
            raise aside.nothing_left(one.path, told_of, hint=hints.of_lines([bad.raw for bad in first]))
        if one.named:
            hints.refuse_map(one.named, shown(one.path), head.rows, functools.partial(_all_rows, one))
        told = detect.detect(head.rows, shown(one.path), one.rename, only=one.format, ordinals=head.ordinals)
        if one.character is not None and "character" not in plugin.find(formats, told.format).columns:
            raise QdataError(f"{shown(one.path)}: {told.format} has no characters; --character is for talks of them")
        found.append(Found(one, told))
    return found


def _all_rows(one: catalog.Input) -> Iterator[list[dict[str, Any]]]:
    """The rows of a file as they stand in it, part by part."""
    for part in source.parts_of(one.path, one.source, one.relative, documents=one.documents):
        yield source.read(part).rows


@dataclass(frozen=True)
class Plan:
    """All that decides what the shards will be, before a row is processed."""

    recipe: DataRecipe
    inputs: list[Found]
    works: list[Work]
    template: Template
    tokenizer: locate.Located
    slow: str | None = None  # why `tokenizers` encodes, and nothing faster

    @property
    def kind(self) -> str:
        """What the rows are: chat, preference, judged or text."""
        return kind_of(self.inputs)

    def without_fast(self, why: str) -> Plan:
        """The same, encoded by `tokenizers`."""
        works = [replace(w, rendering=replace(w.rendering, engine=TOKENIZERS)) for w in self.works if w.rendering]
        return replace(self, works=works, slow=why)

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean equal shards."""
        view = {f.name: getattr(self.recipe, f.name) for f in dataclasses.fields(self.recipe)}
        for made_of_parts in (
            "sources",
            "validation",
            "template",
            "tokenizer",
            "default_system",
            "steps",
            "global_steps",
            "placeholders",
        ):
            del view[made_of_parts]  # their content is in the keys of the parts
        facts = [[(w.split, w.key) for w in self.works], view]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def plan(recipe: DataRecipe, base: Path = Path()) -> Plan:
    """Resolves everything a recipe names: files, dialects, steps, template, tokenizer. Hashes the inputs."""
    _refuse_numbers(recipe)
    if recipe.pack and recipe.max_length is None:  # what is longer than a row fits into none
        recipe = dataclasses.replace(recipe, max_length=recipe.pack)
    cache = cache_dir()
    template, tokenizer = _template_and_tokenizer(recipe, base, cache)
    encoder, why = choose(tokenizer.directory, cache)
    if encoder.id_of(template.stop) is None:
        raise QdataError(
            f"tokenizer {tokenizer.name}: has no token {template.stop!r}, which ends every answer of template "
            f"{template.name}; wanted a tokenizer that fits the template"
        )
    forged = [token for token in encoder.controls.special if token in (recipe.default_system or "")]
    if forged:
        raise QdataError(
            f"--default-system: {forged[0]} in it would be read as the token, and begin or end turns in every prompt; "
            f"leave it out"
        )
    rendering = Rendering(
        template,
        tokenizer.directory,
        encoder.sha256,
        specials=recipe.specials,
        split_over=recipe.max_length if recipe.too_long == "split" else None,
        engine=encoder.engine,
    )
    inputs, works = works_of(recipe, base, cache, rendering)
    return Plan(_settled(recipe, kind_of(inputs)), inputs, list(works), template, tokenizer, why)


def kind_of(inputs: Sequence[Found]) -> str:
    """What the rows of all inputs are. Raises QdataError where they are not of one kind: no trainer takes two at once.

    And a preference row taken as chat by accident would have its rejected answer imitated.
    """
    of_each = {kinds.kind(plugin.find(formats, found.detection.format)): found for found in reversed(inputs)}
    if len(of_each) > 1:
        told = "; ".join(
            f"{shown(found.input.path)}: {kinds.WORDS[kind]} ({found.detection.format})"
            for kind, found in reversed(of_each.items())
        )
        hints = [_AS_CHAT[kind] for kind in of_each if kind in _AS_CHAT and "chat" in of_each]
        raise QdataError(" ".join([f"{told}. Shards hold rows of one kind: build each by itself.", *hints]))
    return next(iter(of_each), "chat")


def _settled(recipe: DataRecipe, kind: str) -> DataRecipe:
    """The recipe with what its kind of rows decides. Raises QdataError for settings that mean nothing for them."""
    form = kind_named(kind)
    too_long = recipe.too_long or form.too_long
    if why := form.refused(loss=recipe.loss, too_long=too_long, pack=recipe.pack):
        raise QdataError(why)
    return dataclasses.replace(recipe, too_long=too_long, loss=form.loss or recipe.loss)


_AS_CHAT = {
    "preference": "Take the chosen answers as chat: qdata convert FILE --to messages --lossy",
    "judged": "Take the good answers as chat: qdata convert FILE --to messages --lossy",
}


def _refuse_numbers(recipe: DataRecipe) -> None:
    """Raises QdataError for numbers that mean nothing, all at once."""
    mistakes = [
        f"data.{name}: wanted a whole number above 0, got {value}"
        for name, value in (("max_length", recipe.max_length), ("pack", recipe.pack))
        if value is not None and value <= 0
    ]
    val = recipe.val
    if val is not None and (val <= 0 or (isinstance(val, float) and val >= 1)):
        mistakes.append(f"data.val: wanted a fraction between 0 and 1, or a whole number of rows, got {val}")
    if mistakes:
        raise QdataError("\n".join(mistakes))


def _template_and_tokenizer(recipe: DataRecipe, base: Path, cache: Path) -> tuple[Template, locate.Located]:
    """Each may name the other: a template declares its tokenizer, and `tokenizer` stands for a tokenizer's template."""
    if recipe.template == "tokenizer":
        if recipe.tokenizer is None:
            raise QdataError("template = tokenizer: name the tokenizer whose template is meant with --tokenizer DIR|ID")
        tokenizer = locate.locate(recipe.tokenizer, None, cache)
        template = of_tokenizer(tokenizer.directory)
    else:
        name = recipe.template
        name = str(base / name) if name.endswith(".jinja") else name
        if recipe.tokenizer is None:
            template = Template.load(name)
            tokenizer = locate.locate(None, template.tokenizer, cache, template.name)
            template = dataclasses.replace(template, variables=special_tokens(tokenizer.directory))
        else:  # what ends an answer of a template may be the tokenizer's eos_token
            tokenizer = locate.locate(recipe.tokenizer, None, cache)
            template = Template.load(name, special_tokens(tokenizer.directory))
    return template.with_default_system(recipe.default_system), tokenizer


def works_of(
    recipe: DataRecipe, base: Path, cache: Path, rendering: Rendering | None
) -> tuple[list[Found], Iterator[Work]]:
    """The files of a recipe and their parts, each with all that is done to it; without a rendering, no tokens."""
    all_steps, at_last = local_steps(recipe, base), global_steps(recipe)
    inputs = find([*recipe.sources, *recipe.validation], base)  # together, so that no two files have one name

    def work(found: Found, part: Part, drawn: Draw | None) -> Work:
        one = found.input
        split = schema.SPLITS[one.group >= len(recipe.sources)]
        how = replace(rendering, think=one.think or recipe.think) if rendering else None
        form = found.detection.format
        return Work(part, split, form, one.rename, all_steps, cache, how, one.character, drawn, at_last)

    return inputs, itertools.starmap(work, parts_of(inputs, recipe.seed))


def parts_of(inputs: Sequence[Found], seed: int) -> Iterator[tuple[Found, Part, Draw | None]]:
    """The parts of each file, as they are found, and which of its rows are drawn, where its source says how many."""
    groups: dict[int, list[Found]] = {}
    for found in inputs:
        groups.setdefault(found.input.group, []).append(found)
    for files in groups.values():
        parts: Iterable[tuple[Found, Part]] = ((found, part) for found in files for part in _parts(found))
        drawn = None
        if count := files[0].input.max_samples:
            parts = list(parts)
            drawn = draw.of_parts([part for _, part in parts], count, seed)
        yield from ((found, part, drawn) for found, part in parts)


def parts_expected(inputs: Sequence[Found]) -> int | None:
    """How many parts there will be, for who waits for them; None where only reading the files tells."""
    counts = [source.parts_expected(one.input.path, documents=one.input.documents) for one in inputs]
    return None if None in counts else sum(count or 0 for count in counts)


def _parts(found: Found) -> Iterator[Part]:
    one = found.input
    return source.parts_of(one.path, one.source, one.relative, documents=one.documents)


def build(
    recipe: DataRecipe,
    output: Path,
    *,
    base: Path = Path(),
    replace: bool = False,
    strict: bool = False,
    workers: int = 1,
    console: Console | None = None,
) -> dict[str, Any]:
    """Makes the shards of a recipe in `output` and returns their manifest.

    `base` is what relative source paths start from. The rest as in `run`.
    """
    return run(plan(recipe, base), output, replace=replace, strict=strict, workers=workers, console=console)


def run(
    planned: Plan,
    output: Path,
    *,
    replace: bool = False,
    strict: bool = False,
    workers: int = 1,
    console: Console | None = None,
) -> dict[str, Any]:
    """Carries a plan out. The folder appears whole or not at all.

    `replace` lets an existing output give way. Rows that cannot be read or rendered are set aside in the ledger and
    told on the console; `strict` refuses them, and samples. Raises QdataError for bad input.
    """
    with whole(output, replace=replace) as partial:
        refuse_samples(planned.inputs, strict)
        if not any(work.split == "train" for work in planned.works):
            raise QdataError("data.sources: nothing is named; wanted files, folders or a catalogue name")
        planned, done = _made(planned, workers, console)
        told = aside.refuse(done, strict)
        refuse_unknown_scores((*planned.works[0].steps, *planned.works[0].global_steps), done)
        partial.mkdir()
        manifest = assemble.assemble(planned, done, partial)
    if console:
        report.set_aside(console, told)
    return manifest


def _made(planned: Plan, workers: int, console: Console | None) -> tuple[Plan, list[Done]]:
    """The parts of a plan, done; should the fast encoder fail its test on the way, of the plan without it."""
    try:
        total = len(planned.works)
        return planned, list(progress(local.run(process, planned.works, workers), total, "tokenizing", console))
    except DifferentIdsError as error:
        if console:
            console.print(f"[bold yellow]{escape(str(error))}; it all is encoded again, by tokenizers[/]")
        return _made(planned.without_fast(str(error)), workers, console)


def current(recipe: DataRecipe, output: Path, *, base: Path = Path(), strict: bool = False) -> bool:
    """Whether `output` holds the shards this recipe would make of its inputs as they are now.

    Under `strict`, shards that a strict build would refuse to make are not current.
    """
    file = output / "manifest.json"
    if not file.is_file():
        return False
    manifest = json.loads(file.read_text(encoding="utf-8"))
    if manifest.get("fingerprint") != plan(recipe, base).fingerprint:
        return False
    return not (strict and (manifest["sample"] or aside.in_manifest(manifest)))


def conversations(recipe: DataRecipe, *, base: Path = Path(), strict: bool = False) -> pl.DataFrame:
    """The kept training rows of a recipe after all steps, in the CONVERSATION schema. Nothing is tokenised.

    Rows that cannot be read are not among them; `strict` refuses them.
    """
    _, works = works_of(recipe, base, cache_dir(), None)
    done = [process(work) for work in works if work.split == "train"]
    aside.refuse(done, strict)
    rows = pl.concat([d.conversations() for d in done], how="diagonal_relaxed")
    if at_last := global_steps(recipe):
        refuse_unknown_scores((*done[0].work.steps, *at_last), done)
        rows = decide.apply(rows, decide.decide(at_last, [d.directory for d in done]))
    return rows.filter(pl.col("drop").is_null())


def progress(results: Iterator[Result], total: int | None, what: str, console: Console | None) -> Iterable[Result]:
    """Passes results on, with a bar that counts parts."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console or Console(quiet=True), transient=True) as bar:
        yield from bar.track(results, total=total, description=what)


def refuse_samples(inputs: Sequence[Found], strict: bool) -> None:
    """Under `strict`, raises QdataError when some input is only the sample of its data set."""
    samples = sorted({name for found in inputs for name in found.samples})
    if strict and samples:
        raise QdataError(
            f"{', '.join(samples)}: only the sample is here, and --strict refuses samples. "
            f"Get the data set: qdata fetch {samples[0]}"
        )

"""Rows of one dialect to rows of another, with a ledger beside the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console

from qdata import aside, decide, gather, manifest, part, pipeline, plugin, stepping
from qdata.aside import Aside
from qdata.decide import GlobalStep
from qdata.engine import local
from qdata.errors import QdataError
from qdata.part import NAMED, Step, Work
from qdata.paths import cache_dir, file_sha256, name_of, whole
from qdata.recipe import Source
from qdata.rows import catalog, formats, kinds, provenance
from qdata.rows import source as containers
from qdata.tokens.shards import write_json
from qdata.written import Writing, Written, write


class Converted(NamedTuple):
    """The manifest, and a look at the way: per input file its dialect and a row, the first row written, and what could
    not be read."""

    manifest: dict[str, Any]
    inputs: list[pipeline.Found]
    sample: dict[str, Any] | None
    aside: Aside


def convert(
    sources: Sequence[Source],
    to: str | None,
    output: Path,
    *,
    steps: tuple[Step, ...] = (),
    global_steps: tuple[GlobalStep, ...] = (),
    command: str = "convert",
    base: Path = Path(),
    replace: bool = False,
    strict: bool = False,
    lossy: bool = False,
    workers: int = 1,
    seed: int = 0,
    console: Console | None = None,
) -> Converted:
    """Writes all rows of the sources to `output` in the dialect `to`; its name says in which container.

    Without `to` they stay in their own dialect, which must then be one. `steps` edit, drop and score rows on the way;
    `global_steps` drop and score what is then left, when all parts are done and before the rows are put together.
    Columns nobody knows come back out. Rows that cannot be read are set aside in the ledger; `strict` refuses them, and
    samples. Rows that `to` cannot express are refused; with `lossy` they are written without what is in the way, and
    set aside where that does not do; the ledger says what was left out. `seed` decides which rows are drawn where a
    source has `max_samples`. Beside the file lies OUTPUT.qdata/ with manifest, ledger and dropped rows. Nothing is
    written on an error.
    """
    if to is not None:
        plugin.find(formats, to)  # a misspelt name is refused before any work
    containers.refuse_name(output.name or str(output))
    _refuse_own_input(output, sources, base)
    _refuse_foreign(output, replace)
    with whole(output, replace=replace) as partial, whole(provenance.sidecar(output), replace=True) as beside:
        inputs = pipeline.find(sources, base)
        pipeline.refuse_samples(inputs, strict)
        to = to or _one_dialect(inputs)
        writings = (Writing(work, to, lossy) for work in _works(inputs, steps, global_steps, seed))
        results: Iterable[Written] = pipeline.progress(
            local.run(write, writings, workers), pipeline.parts_expected(inputs), "converting", console
        )
        decisions = None
        if global_steps:
            results = list(results)
            _refuse(results, strict, to, lossy)
            decisions = decide.decide(global_steps, [one.directory for one in results])
        beside.mkdir()
        with containers.sink(partial, output.name, plugin.find(formats, to).columns) as sink:
            gathered = gather.gather(results, decisions, sink, beside, output.name)
        done = gathered.done
        told = _refuse(done, strict, to, lossy)
        facts = {
            "command": command,
            **manifest.of_inputs(inputs, done),
            "to": to,
            "steps": [part.step_facts(step) for step in steps],
            "global_steps": [part.step_facts(step) for step in global_steps],
            "seed": seed,
            "rows": gathered.sums,
            "left_out": gathered.left_out,
            "scores": gathered.scores,
            "output": {"name": output.name, "sha256": file_sha256(partial)},
        }
        write_json(beside / "manifest.json", facts)
    return Converted(facts, inputs, gathered.first, told)


def _works(
    inputs: Sequence[pipeline.Found], steps: tuple[Step, ...], global_steps: tuple[GlobalStep, ...], seed: int
) -> Iterator[Work]:
    """The parts of all inputs as they are found, each with all that is done to its rows."""
    cache = cache_dir()
    for found, one, drawn in pipeline.parts_of(inputs, seed):
        how: dict[str, Any] = {"character": found.input.character, "draw": drawn, "global_steps": global_steps}
        yield Work(one, "train", found.detection.format, found.input.rename, steps, cache, **how)


def _refuse(done: Sequence[Written], strict: bool, to: str, lossy: bool) -> Aside:
    """What was set aside. Raises QdataError for all that makes the output one that nobody should have."""
    told = aside.refuse(done, strict)
    if done:
        stepping.refuse_unknown_scores((*done[0].work.steps, *done[0].work.global_steps), done)
    _refuse_lost(done, to, lossy)
    return told


def _one_dialect(inputs: Sequence[pipeline.Found]) -> str:
    found = {one.detection.format: one.input.path for one in inputs}
    if len(found) > 1:
        listed = ", ".join(f"{name} ({path})" for name, path in found.items())
        raise QdataError(f"the rows are of several dialects: {listed}; say with --to which one to write")
    return next(iter(found))


def _refuse_lost(done: Sequence[Written], to: str, lossy: bool) -> None:
    """Raises QdataError for rows that cannot be expressed, unless `lossy` sets them aside, and where none is left."""
    lost = [one for written in done for one in written.lost]
    losses = sum((Counter(one.losses) for one in done), Counter[str]())
    more = [f"… and {losses.total() - NAMED:,} more"] if losses.total() > NAMED else []
    shown = [*(f"{row}: {to} cannot express {what}" for row, what in lost[:NAMED]), *more]
    if losses and not lossy:
        other = "Mend them" if to == "messages" else "Choose another --to (messages expresses every conversation)"
        if any(map(kinds.is_of_other_kind, losses)):
            other = "Choose another --to (`qdata formats` lists them)"
        less = "set these rows aside with --lossy"
        if any(map(kinds.can_be_left_out, losses)):
            less = "leave out what is in the way with --lossy; a row that cannot be expressed even so is then set aside"
        raise QdataError("\n".join([*shown, f"{other}, or {less}."]))
    if not any(one.kept for one in done):
        raise QdataError("\n".join([*shown, f"no row is left to write; {_where_they_went(done)}"]))


def _where_they_went(done: Sequence[Written]) -> str:
    books = pl.concat(one.book().select("step", "reason") for one in done)
    steps = books.filter(~pl.col("step").is_in(["read", "convert"])).group_by("step", "reason").len().sort("step")
    dropped = ", ".join(f"{step}.{reason} {count:,}" for step, reason, count in steps.iter_rows())
    return f"dropped: {dropped}" if dropped else "all were set aside"


def _refuse_own_input(output: Path, sources: Sequence[Source], base: Path) -> None:
    """Rows would be gone for good where what is made of them takes their place."""
    if output.is_file() and any(output.samefile(one.path) for one in catalog.resolve(sources, base)):
        raise QdataError(f"-o {output}: it is one of the inputs; choose another -o")


def _refuse_foreign(output: Path, replace: bool) -> None:
    """Only a file gives way to a file, and only a folder that we made beside it to another one of ours."""
    if replace and output.is_dir():
        raise QdataError(f"-o {output}: there is a folder of that name, and --overwrite replaces files only")
    beside = provenance.sidecar(output)
    if beside.exists() and not (beside.is_dir() and (provenance.is_ours(beside) or not any(beside.iterdir()))):
        raise QdataError(
            f"{beside}: the ledger of {output} would lie here, and what is here is not ours; choose another -o"
        )


def default_output(inputs: Sequence[Source], to: str) -> Path:
    """`data/NAME.TO.jsonl`. Raises QdataError when several inputs leave no single name."""
    names = {name_of(s.path) for s in inputs}
    if len(names) != 1:
        raise QdataError("several inputs: name the output with -o FILE.jsonl")
    return Path("data") / f"{names.pop()}.{to}.jsonl"

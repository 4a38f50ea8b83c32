"""All that a report says of an output: counts from its ledger, distributions of its rows, and examples.

The terminal and the HTML page are told from the same Facts. Nothing is believed twice: the sums must close, and the
ledger must say what the manifest says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from qdata import output
from qdata.errors import QdataError
from qdata.output import Output
from qdata.reporting import measures, samples
from qdata.reporting.book import Book
from qdata.reporting.measures import Distribution
from qdata.reporting.samples import Sampled
from qdata.rows import scores

_MOST = 40  # lines of a table whose length the data decides
_BEFORE, _AFTER = ("read", "max_samples"), ("convert", "render", "loss", "max_length")  # no steps, and they drop rows


@dataclass(frozen=True)
class Rows:
    """Rows that came in; kept + dropped are as many, and `edited` are some of the kept."""

    entered: int
    kept: int
    edited: int
    dropped: int


@dataclass(frozen=True)
class Input:
    """A file that was read; `rows` is null where nobody can tell any more."""

    file: str
    dialect: str
    split: str
    made_by: str | None
    sample: bool
    rows: int | None


@dataclass(frozen=True)
class Step:
    """What a step did: kept rows that it edited, rows it dropped, and rows that were left then.

    A step that stands several times in a list has one line, at its first place, with all its settings.
    """

    name: str
    settings: tuple[Mapping[str, Any], ...]
    edited: int
    dropped: int
    left: int


@dataclass(frozen=True)
class Reason:
    """Why rows were dropped."""

    step: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Stage:
    """One command of the road that led to the output, and what it did to its rows."""

    name: str
    command: str
    inputs: tuple[Input, ...]
    rows: Rows
    steps: tuple[Step, ...]
    reasons: tuple[Reason, ...]
    left_out: Mapping[str, int]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    samples: tuple[Sampled, ...]


@dataclass(frozen=True)
class Share:
    """Rows of one kind (a source, a language), kept and dropped."""

    name: str
    kept: int
    dropped: int


@dataclass(frozen=True)
class Facts:
    """An output: the stages that led to it, oldest first, and what its rows are like.

    `rows`: what entered the first stages, and what became of it by the end of the last. `dropped` in distributions and
    shares are the rows that all of the stages dropped; `shards` is the manifest of a shard folder, else null; `told`
    says whether the rows themselves could be looked at.
    """

    name: str
    rows: Rows
    stages: tuple[Stage, ...]
    distributions: tuple[Distribution, ...]
    scores: Mapping[str, Mapping[str, Any]]
    sources: tuple[Share, ...]
    languages: tuple[Share, ...]
    shards: Mapping[str, Any] | None
    told: bool

    @property
    def last(self) -> Stage:
        """The stage that wrote the output."""
        return self.stages[-1]


def of(path: Path, many: int) -> Facts:
    """The facts of an output, with at most `many` samples of each kind.

    Raises QdataError where nothing of ours lies there, where sums do not close, or a ledger and its manifest differ.
    """
    found = output.find(path)
    try:
        return _of(found, many)
    except (pl.exceptions.PolarsError, FileNotFoundError) as error:
        raise QdataError(f"{found.folder}: not as it was written ({error}); make the output again") from None


def _of(found: Output, many: int) -> Facts:
    road = list(_road(found, set()))
    books = [Book.of(one) for one in road]
    kept = measures.kept(found)
    gone = measures.dropped(road)
    rows, by_source = _rows(road)
    distributions = list(measures.distributions(kept, gone))
    shards = found.manifest if found.is_shards else None
    if shards:
        tokens = measures.tokens(found)
        _same_tokens(found, tokens)
        distributions = [*measures.distributions(tokens, pl.DataFrame()), *distributions]
    scored = [name for name in (kept.columns if kept is not None else ()) if name.startswith(measures.SCORE)]
    told = pl.DataFrame() if kept is None else kept.select(pl.col(n).name.map(_bare) for n in scored)
    return Facts(
        name=_name(found),
        rows=rows,
        stages=tuple(_stage(one, book, books, road, many) for one, book in zip(road, books, strict=True)),
        distributions=tuple(distributions),
        scores={name: facts for name, facts in scores.summary(told).items() if facts["rows"]},
        sources=tuple(by_source),
        languages=tuple(_languages(kept, gone)),
        shards=shards,
        told=kept is not None,
    )


def _name(one: Output) -> str:
    return one.path.resolve().name


def _rows(road: Sequence[Output]) -> tuple[Rows, list[Share]]:
    """What became of the rows by the end of the road, in all and by source.

    A row that two stages edited was edited once; one that some stage dropped, and that came another way, is kept.
    """
    kept = road[-1].ledger().filter(pl.col("action") != "dropped").select("row")
    edited, dropped = (
        pl.concat([one.ledger().filter(pl.col("action") == action).select("row") for one in road]).unique()
        for action in ("edited", "dropped")
    )
    source = pl.col("row").str.split("/").list.first().alias("source")  # a source's name holds no slash
    counts = [
        kept.group_by(source).len(),
        dropped.join(kept, on="row", how="anti").group_by(source).len(),
        kept.join(edited, on="row", how="semi").group_by(source).len(),
    ]
    stay, gone, changed = (Counter(dict(frame.iter_rows())) for frame in pl.collect_all(counts))
    total = stay.total() + gone.total()
    return Rows(total, stay.total(), changed.total(), gone.total()), _shares(stay, gone)


def _bare(column: str) -> str:
    name = column.removeprefix(measures.SCORE)
    return "score" if name == "given" else name


def _road(one: Output, seen: set[Path]) -> Iterator[Output]:
    """What the output was made of, as far as it is still here, before the output itself."""
    seen.add(one.folder.resolve())
    for earlier in output.before(one):
        if earlier.folder.resolve() not in seen:
            yield from _road(earlier, seen)
    yield one


def _stage(one: Output, book: Book, books: Sequence[Book], road: Sequence[Output], many: int) -> Stage:
    manifest = one.manifest
    rows = Rows(*map(book.count, ("in", "kept", "edited", "dropped")))
    steps = tuple(_steps(manifest, book, rows))
    order = {step.name: place for place, step in enumerate(steps)}
    reasons = [Reason(step or "", why or "", n) for (action, step, why), n in book.fates.items() if action == "dropped"]
    files = [(earlier.manifest.get("output"), of) for earlier, of in zip(road, books, strict=True)]
    by_hash = {written["sha256"]: of for written, of in files if written}
    return Stage(
        name=_name(one),
        command=manifest["command"],
        inputs=tuple(_inputs(manifest, book, by_hash)),
        rows=rows,
        steps=steps,
        reasons=tuple(sorted(reasons, key=lambda r: (order[r.step], -r.rows, r.reason))),
        left_out=manifest.get("left_out", {}),
        versions=manifest["versions"],
        hashes=_hashes(manifest),
        samples=tuple(samples.of(one, list(order), many)),
    )


def _steps(manifest: Mapping[str, Any], book: Book, rows: Rows) -> Iterator[Step]:
    dropped, edited = Counter[str](), Counter[str]()
    for (action, names, _), n in book.fates.items():
        if action == "dropped":
            dropped[names or ""] += n
        elif names:  # all that edited the row; one that did so twice counts it once
            edited.update(dict.fromkeys(names.split(","), n))
    settings: dict[str, list[Mapping[str, Any]]] = {name: [] for name in _BEFORE}
    for name, how in map(_step, manifest["steps"]):
        settings.setdefault(name, []).append(how)
    for name in _AFTER:
        settings.setdefault(name, [])
    for name, how in map(_step, manifest.get("global_steps", [])):
        settings.setdefault(name, []).append(how)
    for name in sorted({*dropped, *edited}):
        settings.setdefault(name, [])
    left = rows.entered
    for name, all_settings in settings.items():
        if all_settings or dropped[name] or edited[name]:
            left -= dropped[name]
            yield Step(name, tuple(all_settings), edited[name], dropped[name], left)


def _step(one: Any) -> tuple[str, Mapping[str, Any]]:
    """A step in a manifest of rows (name, settings) or of shards (an object)."""
    return (one["step"], one["settings"]) if isinstance(one, dict) else (one[0], one[1])


def _inputs(manifest: Mapping[str, Any], book: Book, by_hash: Mapping[str, Book]) -> Iterator[Input]:
    counts = Counter[str]()
    for (file, _), n in book.files.items():
        counts[file] += n
    for one in manifest["inputs"]:
        file, made_by = f"{one['source']}/{one['relative']}", one.get("made_by")
        rows: int | None
        if made_by is None:
            rows = counts[file]
        elif made_by["sha256"] in by_hash:
            rows = by_hash[made_by["sha256"]].count("kept")
        else:  # its rows go by the names of the files they first came from
            rows = book.count("in") if len(manifest["inputs"]) == 1 else None
        told = f"qdata {made_by['command']}" if made_by else None
        yield Input(file, one["format"], one["split"], told, one["sample"], rows)


def _hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What an output is known by: the SHA-256 of its file, or of each shard."""
    if "output" in manifest:
        return {manifest["output"]["name"]: manifest["output"]["sha256"]}
    return {shard["name"]: shard["sha256"] for split in manifest["splits"].values() for shard in split["shards"]}


def _languages(kept: pl.DataFrame | None, dropped: pl.DataFrame) -> list[Share]:
    """Only where `qdata score --by language` or a step told them."""
    name = f"{measures.SCORE}lang"
    none = pl.DataFrame(schema={name: pl.String})
    frames = [frame if frame is not None and name in frame.columns else none for frame in (kept, dropped)]
    return _shares(*(Counter(dict(frame[name].drop_nulls().value_counts().iter_rows())) for frame in frames))


def _shares(kept: Counter[str], dropped: Counter[str]) -> list[Share]:
    """By rows, the most first; the rarest of many together."""
    made = [Share(name, kept[name], dropped[name]) for name in {*kept, *dropped}]
    made.sort(key=lambda one: (-one.kept - one.dropped, one.name))
    few, rest = made[:_MOST], made[_MOST:]
    if rest:
        few.append(Share(f"{len(rest):,} more", sum(one.kept for one in rest), sum(one.dropped for one in rest)))
    return few


def _same_tokens(found: Output, tokens: pl.DataFrame) -> None:
    """Raises QdataError where the shards hold other tokens than the manifest counts."""
    for name in ("tokens", "trained_tokens"):
        said = sum(split[name] for split in found.manifest["splits"].values())
        if (seen := int(tokens[name].sum())) != said:
            raise QdataError(
                f"{found.folder}: {seen:,} {name.replace('_', ' ')} in its shards, and manifest.json says {said:,}; "
                f"one of them was changed. Render again"
            )

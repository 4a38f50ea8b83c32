"""All that a report says of an output: counts from its ledger, distributions of its rows, and examples.

The terminal and the HTML page are told from the same Facts. Nothing is believed twice: the sums must close, and the
ledger must say what the manifest says.
"""

from __future__ import annotations

import re
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
    books = [_Book.of(one) for one in road]
    kept = measures.kept(found)
    gone = pl.concat([measures.of(one.dropped()).collect(engine="streaming") for one in road], how="diagonal_relaxed")
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
        rows=_rows(road, books),
        stages=tuple(_stage(one, book, books, road, many) for one, book in zip(road, books, strict=True)),
        distributions=tuple(distributions),
        scores={name: facts for name, facts in scores.summary(told).items() if facts["rows"]},
        sources=tuple(_sources(books)),
        languages=tuple(_languages(kept, gone)),
        shards=shards,
        told=kept is not None,
    )


def _name(one: Output) -> str:
    return one.path.resolve().name


def _rows(road: Sequence[Output], books: Sequence[_Book]) -> Rows:
    """Of all stages together; a row that two stages edited was edited once."""
    kept, dropped = books[-1].count("kept"), sum(book.count("dropped") for book in books)
    edited = pl.concat([one.ledger().filter(pl.col("action") == "edited").select("row") for one in road]).unique()
    stays = road[-1].ledger().filter(pl.col("action") != "dropped").select("row")
    return Rows(
        kept + dropped, kept, stays.join(edited, on="row", how="semi").select(pl.len()).collect().item(), dropped
    )


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


@dataclass(frozen=True)
class _Book:
    """A ledger in counts: of (action, step, reason), and of (file, action)."""

    fates: Mapping[tuple[str, str | None, str | None], int]
    files: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, one: Output) -> _Book:
        book = one.ledger()
        file = pl.col("row").str.replace(r"#\d+$", "").alias("file")
        fates, files = pl.collect_all(
            [book.group_by("action", "step", "reason").len(), book.group_by(file, "action").len()]
        )
        made = cls({tuple(row[:3]): row[3] for row in fates.rows()}, {tuple(row[:2]): row[2] for row in files.rows()})
        made.check(one)
        return made

    def count(self, what: str) -> int:
        """Rows in, kept (edited ones too), edited, dropped."""
        actions = {"in": ("kept", "edited", "dropped"), "kept": ("kept", "edited")}.get(what, (what,))
        return sum(n for (action, _, _), n in self.fates.items() if action in actions)

    @property
    def dropped(self) -> dict[str, int]:
        """Rows by what CONVERSATION's `drop` says."""
        return {f"{step}.{why}": n for (action, step, why), n in self.fates.items() if action == "dropped"}

    def check(self, one: Output) -> None:
        """Raises QdataError unless in = kept + dropped, and the manifest counts as the ledger does."""
        said = one.manifest["rows"]
        if said["in"] != said["kept"] + sum(said["dropped"].values()):
            raise QdataError(
                f"{one.folder / 'manifest.json'}: {said['in']:,} rows in, and kept and dropped are "
                f"{said['kept'] + sum(said['dropped'].values()):,}; it was changed. Make the output again"
            )
        found = {name: self.count(name) for name in ("in", "kept", "edited")}
        found |= {f"dropped {why}": n for why, n in self.dropped.items()}
        wanted = {name: said[name] for name in ("in", "kept", "edited")}
        wanted |= {f"dropped {why}": n for why, n in said["dropped"].items()}
        if other := [name for name in {**wanted, **found} if wanted.get(name, 0) != found.get(name, 0)]:
            raise QdataError(
                f"{one.folder / 'ledger.parquet'}: {found.get(other[0], 0):,} rows {other[0]}, and the manifest beside "
                f"it says {wanted.get(other[0], 0):,}; one of them was changed. Make the output again"
            )


def _stage(one: Output, book: _Book, books: Sequence[_Book], road: Sequence[Output], many: int) -> Stage:
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


def _steps(manifest: Mapping[str, Any], book: _Book, rows: Rows) -> Iterator[Step]:
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


def _inputs(manifest: Mapping[str, Any], book: _Book, by_hash: Mapping[str, _Book]) -> Iterator[Input]:
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


def _sources(books: Sequence[_Book]) -> list[Share]:
    """Where the rows first came from; what comes to the last stage was kept by all before it."""
    kept, dropped = Counter[str](), Counter[str]()
    for (file, action), n in (pair for book in books for pair in book.files.items()):
        if action == "dropped":
            dropped[re.sub(r"/.*", "", file, flags=re.DOTALL)] += n
    for (file, action), n in books[-1].files.items():
        if action != "dropped":
            kept[re.sub(r"/.*", "", file, flags=re.DOTALL)] += n
    return _shares(kept, dropped)


def _languages(kept: pl.DataFrame | None, dropped: pl.DataFrame) -> list[Share]:
    """Only where `qdata score --by language` or a step told them."""
    name = f"{measures.SCORE}lang"
    counts = []
    for frame in (kept, dropped):
        there = frame is not None and name in frame.columns
        counts.append(Counter(dict(frame[name].drop_nulls().value_counts().iter_rows())) if there and frame is not None
                      else Counter[str]())  # fmt: skip
    return _shares(*counts)


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

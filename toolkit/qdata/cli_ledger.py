"""The commands that ask ledgers: what became of a row, what became of all rows, what differs between two outputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from qdata.cli_base import console
from qdata.errors import QdataError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

    from qdata.difference import Difference, Side
    from qdata.output import Output

_WIDTH = 100  # of the first line of a text
_BY = ("reason", "step", "action", "source", "file", "survivor")
_STYLES = {"-": "red", "+": "green"}


class Word(click.Choice[str]):
    """One of some words; a misspelt one is told with the one that was meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word. Raises QdataError for any other."""
        if value not in self.choices:
            name = param.opts[0] if param else ""
            raise QdataError(f"{name} {value}: wanted one of {', '.join(self.choices)}.{_near(value, self.choices)}")
        return str(value)


def _near(value: str, choices: Iterable[str]) -> str:
    told = did_you_mean(value, choices)
    return told if told.startswith(" Did") else ""


def _output(path: Path | None) -> Output:
    """The output that is asked: the newest, where none is named."""
    from qdata import output, workspace

    if path is not None:
        return output.find(path)
    newest = workspace.newest()
    console.print(f"asking the newest output, [bold]{escape(str(newest))}[/]", style="dim", highlight=False)
    return output.find(newest)


def _out() -> Console:
    return Console(soft_wrap=True, highlight=False)


@click.command()
@click.argument("row", metavar="ROW|FILE#ORDINAL")
@click.argument("output", metavar="[OUT]", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the history as JSON on stdout.")
def why(row: str, output: Path | None, as_json: bool) -> None:
    """Tell the history of one row: from the file it came from through every command to its tokens.

    ROW is a row id, or as much of the end of it as tells the file; or the file as it lies on the disk. Where FILE is an
    output of ours, the row that stands in that place of it is meant, from 1. OUT is a file, shards or a run; default:
    the newest output here. Its inputs are followed back as far as they are found beside it or here, unchanged.

    \b
    qdata why alpaca_data.json#564
    qdata why data/alpaca.clean.jsonl#3 data/alpaca.clean.qwen2
    """
    from qdata import history, row_ids
    from qdata import output as outputs
    from qdata.rows import provenance

    named = Path(row_ids.place_of(row)[0])
    ours = output is None and provenance.is_ours(provenance.sidecar(named))
    try:
        asked = _output(output)
    except QdataError:
        if not ours:
            raise
        asked = outputs.find(named)
    meant = row_ids.meant(row, history.lineage(asked))
    told = history.told(meant.row, asked)
    if not told["stages"] and meant.at and output is None:
        asked = meant.at
        told = history.told(meant.row, asked)
    if not told["stages"]:
        raise QdataError(f"{row}: that is {meant.row}, which is in no ledger of {asked.path} or what it was made of")
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
        return
    _tell(_out(), told)


def _tell(out: Console, told: dict[str, Any]) -> None:
    """A history, a block for each stage."""
    from qdata import changes

    file, _, ordinal = told["row"].rpartition("#")
    out.print(f"[bold]{escape(told['row'])}[/]  [dim](row {int(ordinal):,} of {escape(file.partition('/')[2])})[/]")
    for one in told["missing"]:
        out.print(
            f"  [yellow]earlier: qdata {one['command']} wrote {escape(one['name'])} (sha256 {one['sha256'][:12]}…); "
            f"it is not found as it was, so its ledger cannot be asked[/]"
        )
    for stage in told["stages"]:
        _tell_stage(out, stage, told["row"])
    last = told["stages"][-1]
    if told["now"] is None:
        out.print("\n[yellow]its text is not here any more: the file is gone, or was edited since[/]")
        return
    out.print("\n[bold]what it said when it was dropped[/]" if last["dropped_by"] else "\n[bold]what it says[/]")
    for line in changes.told(told["now"]):
        out.print(f"  {escape(changes.visible(line))}")


def _tell_stage(out: Console, stage: dict[str, Any], row: str) -> None:
    from qdata import changes

    out.print(f"\n[bold]qdata {stage['command']}[/] → {escape(stage['output'])}")
    if stage["dropped_by"]:
        edited = " (after it was edited)" if stage["diff"] else ""
        out.print(f"  [red]dropped[/] by {escape(stage['dropped_by'])}{edited}")
    elif stage["diff"]:
        out.print(f"  [cyan]edited[/] by {escape(', '.join(stage['steps']))}")
    else:
        out.print("  kept as it was")
    if stage["note"]:
        out.print(f"  {escape(stage['note'])}")
    for sign, line in stage["diff"]:
        out.print(f"    {sign} {escape(changes.visible(line))}", style=_STYLES.get(sign, "dim"))
    if by := stage["by"]:
        out.print(f"  in its stead stays [bold]{escape(by['row'])}[/]")
        for line in changes.told(by["said"]) if by["said"] else ["(its text is not here any more)"]:
            out.print(f"    {escape(changes.visible(line))}")
    if stage["scores"]:
        out.print("  scores: " + escape(", ".join(f"{k} {_number(v)}" for k, v in stage["scores"].items())))
    place = stage["place"]
    if place and "file" in place:
        since = "" if place["unchanged"] else " [yellow](as it was written; the file is gone, or was edited since)[/]"
        out.print(f"  stands in {escape(place['file'])}, row {place['ordinal']:,}{since}")
    elif place:
        _tell_samples(out, place["samples"], stage["output"], row)


def _tell_samples(out: Console, samples: list[dict[str, Any]], shards: str, row: str) -> None:
    many = f"{len(samples)} samples" if len(samples) != 1 else "1 sample"
    out.print(f"  became {many}")
    for one in samples:
        place = f"{one['split']} row {one['row']:,}"
        out.print(f"    {escape(place)} ({escape(one['shard'])}, index {one['index']:,})")
    for split in dict.fromkeys(one["split"] for one in samples):
        other = "" if split == "train" else f" --split {split}"
        out.print(f"  its tokens: qdata show {escape(shards)} --row '{escape(row)}'{other}")


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


@click.command()
@click.argument("output", metavar="[OUT]", required=False, type=click.Path(path_type=Path))
@click.option("--by", type=Word(_BY), default="reason", show_default=True,
              help="What to count by; survivor: the row that stays where others fell to it.")  # fmt: skip
@click.option("--action", type=Word(("kept", "edited", "dropped")), help="List the rows of which this became.")
@click.option("--reason", metavar="STEP[.REASON]", help="List the rows that were dropped so, or edited by that step.")
@click.option("--samples", type=click.IntRange(min=0), default=20, show_default=True, metavar="N",
              help="At most so many lines.")  # fmt: skip
@click.option("-o", "--output", "file", type=click.Path(path_type=Path), metavar="FILE",
              help="Write all lines, with texts before and after, to FILE.csv, .parquet or .jsonl.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an existing FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def ledger(
    output: Path | None,
    by: str,
    action: str | None,
    reason: str | None,
    samples: int,
    file: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Count what became of the rows of an output; with --action or --reason, list them.

    Every sum closes: in = kept + dropped, and edited ones are kept. It is checked, against the manifest and against the
    rows that lie in the output: exit 2 where something does not close. Edited rows are counted under the steps that
    edited them, together. OUT is a file, shards or a run; default: the newest output here.

    \b
    qdata ledger data/alpaca.clean.jsonl
    qdata ledger --reason boilerplate.as_an_ai --samples 5
    qdata ledger --action edited -o edited.jsonl
    """
    from qdata import audit

    if file is not None:
        audit.refuse_name(file)
    asked = _output(output)
    sums = audit.check(asked)
    listing = action is not None or reason is not None
    lines = audit.chosen(asked, action, reason)
    if file is not None:
        audit.write(asked, lines, file, replace=overwrite)
        console.print(f"[bold green]{escape(str(file))}[/]", highlight=False)
    if listing:
        _list(asked, lines, samples, as_json)
    else:
        _count(asked, sums, by, samples, as_json)


def _list(asked: Output, lines: pl.LazyFrame, samples: int, as_json: bool) -> None:
    import polars as pl

    from qdata import audit, changes

    total = int(lines.select(pl.len()).collect(engine="streaming").item())
    rows = audit.examples(asked, lines, samples).to_dicts()
    if as_json:
        names = ("row", "action", "step", "reason", "by", "before", "after", "said")
        listed = [{name: row[name] for name in names} for row in rows]
        click.echo(json.dumps({"rows": total, "listed": listed}, ensure_ascii=False, indent=2))
        return
    out = _out()
    for row in rows:
        why = f"{row['step']}.{row['reason']}" if row["action"] == "dropped" else row["step"] or row["action"]
        by = f" [dim]→ {escape(row['by'])}[/]" if row["by"] else ""
        first = next(iter(changes.told(row["said"])), "") if row["said"] else "(its text is not here any more)"
        out.print(f"[bold]{escape(row['row'])}[/]  {escape(why)}{by}")
        out.print(f"  {escape(_cut(first))}", style="dim")
    out.print(f"{len(rows):,} of {total:,} rows")


def _cut(text: str) -> str:
    from qdata.changes import visible

    return visible(text[:_WIDTH]) + ("…" if len(text) > _WIDTH else "")


def _count(asked: Output, sums: dict[str, int], by: str, samples: int, as_json: bool) -> None:
    import polars as pl
    from rich.table import Table

    from qdata import audit

    found = audit.counts(asked, by)
    if as_json:
        groups = found.to_dicts()
        told = {"command": asked.manifest["command"], "output": str(asked.path), **sums, "by": by, "groups": groups}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
        return
    rest = found.slice(samples)
    table = Table(box=None)
    table.add_column(by, overflow="fold")
    for name in audit.COUNTS:
        table.add_column(_HEADS.get(name, name), justify="right", no_wrap=True)
    for row in found.head(samples).iter_rows():
        table.add_row(_NONE[by] if row[0] is None else escape(row[0]), *(_figure(n) for n in row[1:]))
    if len(rest):
        others = rest.select(pl.col(list(audit.COUNTS)).sum()).row(0)
        table.add_row(f"[dim]{len(rest):,} more[/]", *(_figure(n) for n in others))
    table.add_row("[bold]all[/]", *(f"[bold]{sums[name]:,}[/]" for name in audit.COUNTS))
    out = Console(highlight=False)
    out.print(f"[bold]{escape(str(asked.path))}[/] (qdata {asked.manifest['command']})", soft_wrap=True)
    out.print(table)
    out.print(
        f"the sums close: {sums['in']:,} in = {sums['kept']:,} kept + {sums['dropped']:,} dropped, as the manifest has "
        f"them, and each kept row is in the output",
        soft_wrap=True,
    )


_HEADS = {"edited": "of these edited"}
_NONE = {"reason": "(kept as it was)", "step": "(kept as it was)", "survivor": "(none)"}


def _figure(number: int) -> str:
    return f"{number:,}" if number else "[dim]–[/]"


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--from", "from_", metavar="DIALECT", help="Dialect of both; default: detected from the rows.")
@click.option("--character", metavar="NAME", help="Who answers in talks of characters, in both.")
@click.option("--samples", type=click.IntRange(min=0), default=5, show_default=True, metavar="N",
              help="Rows to show of each kind.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def diff(a: str, b: str, from_: str | None, character: str | None, samples: int, as_json: bool) -> None:
    """Compare the rows of A and B: files of any dialect and container, folders, outputs, shards or runs.

    Rows are matched by row id where both know that they are the same file's: outputs of ours, and the files that these
    were made of. Elsewhere they are matched by what they say, and then none is changed: it is in only one of them.
    Compared is what a row says (messages, tools, answers, labels, text), not its scores or other columns. Of shards the
    kept rows are meant. Exit 0: the same rows; 1: they differ; 2: an error.

    \b
    qdata diff data/alpaca/alpaca_data.json data/alpaca.clean.jsonl
    qdata diff before.parquet after.jsonl --samples 20
    """
    from qdata.difference import difference, side

    how: dict[str, Any] = {"format": from_, "character": character}
    found = difference(side(a, **how), side(b, **how))
    shown = found.samples(samples)
    if as_json:
        counts = {name: len(getattr(found, name)) for name in ("only_a", "only_b", "changed")} | {"same": found.same}
        told = {"matched_by": found.by, "a": _side(found.a), "b": _side(found.b), **counts, "samples": shown}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        _show(_out(), found, shown)
    if found.differs:
        sys.exit(1)


def _side(one: Side) -> dict[str, Any]:
    return {"path": one.path, "rows": len(one.rows), "unread": one.unread}


def _show(out: Console, found: Difference, shown: dict[str, list[dict[str, Any]]]) -> None:
    from qdata import changes

    for name, one in (("A", found.a), ("B", found.b)):
        unread = f"; {one.unread:,} more cannot be read and are not compared" if one.unread else ""
        out.print(f"[bold]{name}[/] {escape(one.path)}: {len(one.rows):,} rows{unread}")
    by = {"row": "by row id", "content": "by what they say, for they do not know of one origin"}
    out.print(f"rows are matched {by[found.by]}")
    kinds = (("only_a", "only in A", "-", found.only_a), ("only_b", "only in B", "+", found.only_b))
    for key, words, sign, rows in kinds:
        out.print(f"\n[bold]{len(rows):,}[/] {words}")
        for row in shown[key]:
            out.print(f"  [bold]{escape(row['row'])}[/]")
            for line in changes.told(row["said"]):
                out.print(f"  {sign} {escape(_cut(line))}", style=_STYLES[sign])
    if found.by == "row":
        out.print(f"\n[bold]{len(found.changed):,}[/] in both, changed")
    for row in shown["changed"]:
        out.print(f"  [bold]{escape(row['row'])}[/]")
        for sign, line in row["diff"]:
            out.print(f"  {sign} {escape(changes.visible(line))}", style=_STYLES.get(sign, "dim"))
    out.print(f"\n[bold]{found.same:,}[/] in both, the same")

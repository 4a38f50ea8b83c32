"""What a person is told at the end of a command. With `--json` the manifest is printed instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from qdata.aside import Aside
    from qdata.pipeline import Found
    from qdata.recipe import Source


def notices(console: Console, inputs: Sequence[Found]) -> None:
    """Which files are read, in which dialect, told by which row; and loudly where it is only a sample."""
    from qdata.paths import shown
    from qdata.rows.detect import shorten

    for found in inputs:
        one = found.input
        seen = found.detection
        how = f"{seen.share:.0%} of the rows looked at"
        console.print(f"[bold]{escape(shown(one.path))}[/]: {seen.format} ({how})", highlight=False)
        reads = ", ".join(ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in seen.reads.items())
        keeps = f"; keeps as they are {', '.join(seen.keeps)}" if seen.keeps else ""
        console.print(f"  reads {escape(reads)}{escape(keeps)}", style="dim", highlight=False)
        console.print(f"  {escape(shorten(seen.sample, 200))}", style="dim", highlight=False)
    for name in sorted({name for found in inputs for name in found.samples}):
        sample_notice(console, name)


def left_out(console: Console, sources: Sequence[Source], base: Path = Path()) -> None:
    """Files below the named folders that look like rows and are none of them; loudly, those held out for testing.

    Paths of sources are relative to `base`.
    """
    from qdata.rows import catalog, source

    named = {(base / one.path).resolve() for one in sources}
    for folder in filter(None, (catalog.folder_of(one, base) for one in sources)):
        for path, reason in source.left_out(folder):
            console.print(f"not read: {escape(str(path))} ({reason})", style="dim", highlight=False)
        for path, split, files in source.splits_left_out(folder):
            if named.isdisjoint({path.resolve(), *(file.resolve() for file in files)}):
                count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
                console.print(
                    f"[bold yellow]not read: {escape(str(path))} ({count} for {_SPLITS[split]}; name it to read it, "
                    f"or give it with --validation)[/]",
                    highlight=False,
                )


_SPLITS = {"test": "testing", "validation": "validation"}


def sample_notice(console: Console, name: str) -> None:
    """A sample is never mistaken for the data set."""
    from qdata.rows import catalog

    entry = catalog.entries().get(name)
    get = f" Get it: qdata fetch {name}" if entry and entry.hub else ""
    console.print(
        f"[bold black on yellow] SAMPLE [/] {escape(name)}: these are the few rows that ship with qdata, "
        f"not the data set.{get}",
        highlight=False,
    )


def set_aside(console: Console, aside: Aside, *, ledger: bool = True) -> None:
    """Loudly, the rows that could not be read or rendered; `ledger`: whether one was written that keeps them."""
    if not aside.count:
        return
    _named(console, aside)
    rows, were, they_are, whose, them = (
        ("row", "was", "it is", "its", "it") if aside.count == 1 else ("rows", "were", "they are", "their", "them")
    )
    kept = f"; {they_are} in the ledger with {whose} reason" if ledger else ""
    console.print(
        f"[bold yellow]{aside.count:,} {rows} (of {aside.total:,}) {were} set aside{kept}. "
        f"--strict refuses {them} instead.[/]",
        highlight=False,
        soft_wrap=True,
    )


def unregistered(console: Console, aside: Aside) -> None:
    """Loudly, the rows of a file for LLaMA-Factory that cannot be read: they have no part in its entry."""
    if not aside.count:
        return
    _named(console, aside)
    console.print(
        f"[bold yellow]{aside.count:,} of {aside.total:,} rows cannot be read, and LLaMA-Factory reads the file as it "
        f"is: mend it, or name what `qdata convert` makes of it.[/]",
        highlight=False,
        soft_wrap=True,
    )


def _named(console: Console, aside: Aside) -> None:
    for line in aside.shown:
        console.print(f"[yellow]{escape(line)}[/]", highlight=False, soft_wrap=True)


def rows_line(rows: dict[str, Any]) -> str:
    """`52,002 rows in: 51,974 kept (12 edited), 28 dropped (complete.empty_answer 28)`."""
    dropped = sum(rows["dropped"].values())
    edited = f" ({rows['edited']:,} edited)" if rows["edited"] else ""
    reasons = ", ".join(f"{why} {count:,}" for why, count in rows["dropped"].items())
    return f"{rows['in']:,} rows in: {rows['kept']:,} kept{edited}, {dropped:,} dropped" + (
        f" ({reasons})" if reasons else ""
    )


def converted(console: Console, manifest: dict[str, Any], output: Path | None, sample: dict[str, Any] | None) -> None:
    """The end of a command that writes rows; without an output, of one that kept none."""
    from qdata.rows.detect import shorten

    if sample:
        console.print(f"  → {escape(shorten(sample, 200))}", style="dim", highlight=False)
    console.print(escape(rows_line(manifest["rows"])), highlight=False)
    _scores(console, manifest["scores"])
    for what, count in manifest["left_out"].items():
        console.print(f"[bold yellow]left out[/] of {count:,} rows: {escape(what)}", highlight=False)
    if output:
        console.print(
            f"[bold green]{escape(str(output))}[/]  ({manifest['to']}; ledger, manifest, dropped rows: "
            f"{escape(output.name)}.qdata/)",
            highlight=False,
        )


def cleaned(console: Console, manifest: dict[str, Any], output: Path, samples: int) -> None:
    """The funnel of `qdata clean`: what each step edited and dropped, with examples; invisible characters are shown."""
    from qdata.rows.funnel import funnel
    from qdata.rows.provenance import sidecar

    lines = funnel(sidecar(output), [name for name, _ in manifest["steps"]], samples)
    for line in lines:
        what = f"[red]{line.rows:>7,} dropped[/]" if line.reason else f"[cyan]{line.rows:>7,} edited[/] "
        why = f".{line.reason}" if line.reason else ""
        console.print(f"{what} [bold]{escape(line.step + why)}[/]", highlight=False)
        for row, before, after in line.samples:
            shown = f"{_visible(before)} [cyan]→[/] {_visible(after)}" if not line.reason else _visible(before)
            console.print(f"                [dim]{escape(row)}[/]  {shown}", highlight=False)


def _visible(text: str, width: int = 90) -> str:
    """A text in one line, what nobody would see written as an escape, cut to a width."""
    from qdata.changes import visible

    return escape(visible(text[:width]) + ("…" if len(text) > width else ""))


def _scores(console: Console, scores: dict[str, dict[str, Any]]) -> None:
    """A line for each score of the rows that were written."""
    from qdata.rows.scores import QUANTILES

    if not scores:
        return
    table = Table(box=None, header_style="bold")
    for column in ("score", "rows", *QUANTILES):
        table.add_column(column, justify="left" if column == "score" else "right")
    for name, told in scores.items():
        if "commonest" not in told:
            values = (f"{told[q]:.4g}" if q in told else "–" for q in QUANTILES)
            table.add_row(escape(name), f"{told['rows']:,}", *values)
    if table.row_count:
        console.print(table)
    for name, told in scores.items():
        if "commonest" in told:
            counts = ", ".join(f"{value} {count:,}" for value, count in told["commonest"].items())
            console.print(escape(f"{name}: {counts}"), highlight=False)


def built(console: Console, manifest: dict[str, Any], output: Path) -> None:
    """The end of `qdata render`: rows, template, tokenizer, and a line per split."""
    console.print(escape(rows_line(manifest["rows"])), highlight=False)
    template, tokenizer = manifest["template"], manifest["tokenizer"]
    console.print(
        f"template {template['name']} ({template['sha256'][:8]}), default system "
        f"{escape(repr(template['default_system']))}; tokenizer {escape(tokenizer['name'])} from {tokenizer['from']} "
        f"({tokenizer['sha256'][:8]})",
        highlight=False,
    )
    console.print(_splits(manifest))
    _lengths(console, manifest)
    if manifest["kind"] == "preference":
        console.print(
            "preference pairs, for DPO; as chat, with the chosen answers: qdata convert FILE --to messages --lossy",
            style="dim",
            highlight=False,
        )
    if manifest["controls"] and manifest["specials"] == "text":
        console.print(
            f"{manifest['controls']:,} rows hold control tokens such as <|im_end|> as text; they are trained as text "
            f"(a server would parse them)",
            highlight=False,
        )
    if manifest["unfilled_placeholders"]:
        console.print(
            f"[bold black on yellow] UNFILLED [/] {manifest['unfilled_placeholders']:,} rows hold "
            f"{escape(', '.join(manifest['unfilled']))}: trained like this, the model says it literally, and qtrain "
            f"refuses it. Fill with --persona name=… author=…",
            highlight=False,
        )
    console.print(f"[bold green]{escape(str(output))}[/]  (look: qdata show {escape(str(output))})", highlight=False)


def _splits(manifest: dict[str, Any]) -> Table:
    """A line for each split, with what there is to tell of this kind of rows."""
    kind = manifest["kind"]
    unit = _UNITS[kind]
    sides = [name for name in next(iter(manifest["splits"].values())) if name.endswith("_tokens") and name in _SIDES]
    counts = sides or ["samples", "rows", "tokens", "trained"]
    table = Table(box=None, header_style="bold")
    for column in (
        "split",
        unit,
        *(_SIDES.get(name, name) for name in counts),
        "longest",
        *([] if sides else ["fill"]),
    ):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, facts in manifest["splits"].items():
        share = facts["trained_tokens"] / facts["tokens"]
        told = facts | {"trained": facts["trained_tokens"]}
        cells = [f"{told[c]:,}" + (f" ({share:.0%})" if c == "trained" else "") for c in counts]
        filled = f"{facts['fill']:.2%}" if facts["fill"] is not None else "–"
        cells += [f"{facts['longest']:,}", *([] if sides else [filled])]
        table.add_row(name, f"{facts['conversations']:,}", *cells)
    return table


_UNITS = {"chat": "conversations", "text": "documents", "preference": "pairs", "judged": "judged answers"}
_SIDES = {f"{side}_tokens": f"{side} tokens" for side in ("prompt", "chosen", "rejected", "completion")}


def _lengths(console: Console, manifest: dict[str, Any]) -> None:
    """What expansion costs, and how many answer tokens each usual max_length would lose."""
    train = manifest["splits"]["train"]
    if train["expanded"]:
        each = train["growth_by_source"]
        told = ", ".join(f"{escape(name)} {growth:.1f}×" for name, growth in each.items())
        console.print(
            f"{train['expanded']:,} samples more than conversations, because serving prompts of turns differ: "
            f"{train['growth']:.1f}× the tokens of one sample each" + (f" ({told})" if len(each) > 1 else ""),
            highlight=False,
        )
    if manifest["unexpanded_answers"]:
        console.print(
            f"[yellow]{manifest['unexpanded_answers']:,} answers are not trained: their serving prompts differ, and "
            f"--no-expand allows one sample for each conversation[/]",
            highlight=False,
        )
    if manifest["emptied_answers"]:
        console.print(
            f"[yellow]{manifest['emptied_answers']:,} answers are not trained: they are reasoning only, which the "
            f"thinking policy removes[/]",
            highlight=False,
        )
    if manifest["too_long_answers"]:
        answers = f"{manifest['too_long_answers']:,} answers of " if manifest["kind"] == "chat" else ""
        console.print(
            f"[yellow]max_length {manifest['max_length']:,}: {answers}{manifest['too_long_conversations']:,} "
            f"{_UNITS[manifest['kind']]} are dropped[/]",
            highlight=False,
        )
    shares = [(int(n), share) for n, share in manifest["lost_beyond"].items() if 0 < share < 0.5]
    if shares and not (manifest["kind"] == "text" and manifest["too_long"] == "split"):
        what = {"chat": "answer tokens", "text": "tokens"}.get(manifest["kind"], _UNITS[manifest["kind"]])
        told = ", ".join(f"{share:.1%} at {n:,}" for n, share in shares)
        console.print(f"{what} beyond max_length: {told}", highlight=False)
    if manifest["cut_answers"]:
        what = "documents are cut and lack their end" if manifest["kind"] == "text" else _CUT
        console.print(f"[yellow]{manifest['cut_answers']:,} {what}[/]")


_CUT = "answers are cut and end without their stop token"

"""`qdata cache`: what is kept between builds, and throwing it away."""

from __future__ import annotations

import json
import re
import time

import click
from rich.table import Table

from qdata.cli_base import Group, console
from qdata.paths import cache_dir

_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def _bytes(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kb|mb|gb|tb)", value.lower())):
        raise click.BadParameter(f"wanted a number with kB, MB, GB or TB, such as 20GB, got {value}")
    return int(float(found[1]) * _UNITS[found[2]])


def _days(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(h|d)", value.lower())):
        raise click.BadParameter(f"wanted hours or days, such as 12h or 30d, got {value}")
    return float(found[1]) * (3600 if found[2] == "h" else 86_400)


@click.group(cls=Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """Show what is kept between builds, or throw it away.

    Parts of inputs that are done are not made twice: they lie in QDATA_CACHE_DIR, or the user's cache folder, and are
    believed only with the bytes that were written. All of it can be made again.

    \b
    qdata cache
    qdata cache prune --older-than 30d
    qdata cache prune --max-size 20GB
    """
    if context.invoked_subcommand is None:
        _tell(as_json)


def _tell(as_json: bool) -> None:
    from qdata.cache import KINDS, entries

    held = list(entries())
    of_each = {kind: [one for one in held if one.kind == kind] for kind in KINDS}
    if as_json:
        told = {kind: {"entries": len(mine), "bytes": sum(e.bytes for e in mine)} for kind, mine in of_each.items()}
        click.echo(json.dumps({"path": str(cache_dir()), "kinds": told}, indent=2))
        return
    table = Table(box=None, title=f"{cache_dir()}: {_size(sum(one.bytes for one in held))}", title_justify="left")
    for heading in ("what", "entries", "size", "last used"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for kind, mine in of_each.items():
        last = time.strftime("%Y-%m-%d", time.localtime(max(one.used for one in mine))) if mine else ""
        table.add_row(f"{kind}: {KINDS[kind]}", f"{len(mine):,}", _size(sum(one.bytes for one in mine)), last)
    console.print(table, highlight=False)


@cache.command("prune")
@click.option("--older-than", metavar="30d|12h", callback=_days, help="Only what was not used for so long.")
@click.option("--max-size", metavar="20GB", callback=_bytes,
              help="Keep so much; what was longest not used goes first.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="All of it.")
def prune(older_than: float | None, max_size: int | None, everything: bool) -> None:
    """Throw away what is kept between builds: say which with --older-than, --max-size or --all."""
    from qdata import cache as kept

    if everything == (older_than is not None or max_size is not None):
        raise click.UsageError("say what may go: --older-than 30d, --max-size 20GB, or --all and neither of them")
    gone = kept.prune(older_than=older_than, max_bytes=max_size)
    console.print(f"{len(gone):,} entries, {_size(sum(one.bytes for one in gone))}, are gone", highlight=False)


def _size(count: int) -> str:
    unit = next((name for name, size in reversed(_UNITS.items()) if count >= size), None)
    return f"{count / _UNITS[unit]:.1f} {unit[:-1].upper().replace('K', 'k')}B" if unit else f"{count} B"

"""The result of `serving.py` as Markdown: shares, kinds and examples, put between markers of docs/peers.md."""

from __future__ import annotations

import re
from typing import Any

MODELS = {"qwen2_5": "Qwen2.5", "qwen3": "Qwen3"}


def fill(text: str, result: dict[str, Any]) -> str:
    """The document with every block `<!-- shares|kinds|options|example TOOL -->` … `<!-- end -->` written anew."""

    def block(found: re.Match[str]) -> str:
        if found["tool"]:
            return f"{found['mark']}\n{example(result, found['tool'])}\n<!-- end -->"
        written = {"shares": shares, "kinds": kinds, "options": options}[found["name"]](result)
        return f"{found['mark']}\n{written}\n<!-- end -->"

    pattern = r"(?P<mark><!-- (?:(?P<name>shares|kinds|options)|example (?P<tool>[^>]+)) -->).*?<!-- end -->"
    return re.sub(pattern, block, text, flags=re.DOTALL)


def shares(result: dict[str, Any]) -> str:
    """Tools by data sets: share of turns where training equals serving, strictly and but for the newline."""
    columns = result["columns"]
    head = ["", *(f"{MODELS[c['model']]} · {c['set']}" for c in columns)]
    lines = [head, ["---", *("---:" for _ in columns)]]
    turns = [next((t["turns"] for t in c["tools"].values() if "turns" in t), 0) for c in columns]
    lines.append(["*rows, trained turns*", *(f"*{c['rows']:,}, {n:,}*" for c, n in zip(columns, turns, strict=True))])
    lines += [[name, *(_share(column["tools"].get(name)) for column in columns)] for name in result["tools"]]
    return _table(lines)


def kinds(result: dict[str, Any]) -> str:
    """What the turns that differ differ in, counted; a turn may differ in several ways."""
    lines = [["", "data set", "turns", "of which"], ["---", "---", "---:", "---"]]
    for name in result["tools"]:
        for column in result["columns"]:
            counts = column["tools"].get(name)
            if counts is None:
                continue
            if "missing" in counts:
                found, turns = f"missing: {_plain(counts['missing'])}", ""
            else:
                most = sorted(counts["kinds"].items(), key=lambda pair: -pair[1])
                found, turns = "; ".join(f"{kind} {n:,}" for kind, n in most) or "all equal", f"{counts['turns']:,}"
                if counts["unwanted_turns"]:
                    found += f"; trained though `train` is false {counts['unwanted_trained']}"
            lines.append([name, f"{MODELS[column['model']]} · {column['set']}", turns, found])
    return _table(lines)


def example(result: dict[str, Any], tool: str) -> str:
    """One turn of the hard cases for each kind of difference of a tool."""
    shown: dict[str, str] = {}
    for column in result["columns"]:
        for kind, one in column["tools"].get(tool, {}).get("examples", {}).items():
            head = f"{kind} ({MODELS[column['model']]}, {one['turn']})"
            shown.setdefault(kind, f"{head}\n  served   {one['served']}\n  trained  {one['trained']}")
    return "```text\n" + ("\n".join(shown.values()) or "no turn differs") + "\n```"


def options(result: dict[str, Any]) -> str:
    """How each tool was called, and in which versions."""
    lines = [["", "versions", "options"], ["---", "---", "---"]]
    for name in result["tools"]:
        runs = [column["tools"][name] for column in result["columns"] if name in column["tools"]]
        used = list(dict.fromkeys(run["used"] for run in runs if "used" in run))
        versions: dict[str, str] = next((run["versions"] for run in runs if "versions" in run), {})
        spelled = ", ".join(f"{package} {number}" for package, number in versions.items())
        lines.append([name, spelled, "<br>".join(f"`{one}`" for one in used)])
    return _table(lines)


def _share(counts: dict[str, Any] | None) -> str:
    if counts is None:
        return ""
    if "missing" in counts:
        return "missing"
    return f"{_percent(counts['right'], counts['turns'])} / {_percent(counts['right_but_newline'], counts['turns'])}"


def _percent(part: int, whole: int) -> str:
    """Rounded, but 0 and 100 only where they are."""
    share = 100 * part / whole
    return f"{part // whole * 100}" if part in (0, whole) else f"{min(max(share, 0.1), 99.9):.1f}"


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def _table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

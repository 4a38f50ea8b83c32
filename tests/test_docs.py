"""Documentation that cannot rot: the generated pages are up to date, doctests hold, the README's commands run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(ROOT / "toolkit"), str(ROOT / "trainer")]) if m.name)


@pytest.mark.parametrize("page", ["commands.md", "recipe.md"])
def test_generated_pages_are_current(page: str, request: pytest.FixtureRequest) -> None:
    """`make docs` would write what is committed."""
    written = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"][page]()
    file = ROOT / "docs" / page
    if request.config.getoption("--accept"):
        file.write_text(written, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == written, "run `make docs`"


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_doctests(name: str) -> None:
    """The examples in docstrings are true."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def _readme_commands() -> list[str]:
    """The qdata commands of the README's walk along the road, in order."""
    road = (ROOT / "README.md").read_text(encoding="utf-8").split("## The road")[1].split("```")[1]
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in road.splitlines()]
    return [line for line in lines if line.startswith("qdata ")]


def test_readme_road_runs_as_written(tmp_path: Path) -> None:
    """The qdata commands of the README run one after the other in an empty folder."""
    commands = _readme_commands()
    assert len(commands) >= 4
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "qdata.cli", *shlex.split(command)[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (tmp_path / "data" / "align-anything.alpaca.qwen2" / "manifest.json").is_file()


def test_ledger_page_is_real_output(tmp_path: Path) -> None:
    """Every command of docs/ledger.md prints what stands below it; white space at line ends does not count."""
    page = (ROOT / "docs/ledger.md").read_text(encoding="utf-8")

    def printed(command: str) -> str:
        words = [sys.executable, "-m", "qdata.cli", *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), f"{command}\n{done.stderr}"
        return "\n".join(line.rstrip() for line in done.stdout.splitlines())

    for command in page.split("```bash\n")[1].split("```")[0].splitlines():
        printed(command)
    blocks = re.findall(r"```text\n\$ (.*)\n((?:.*\n)*?)```", page)
    assert len(blocks) >= 5
    for command, output in blocks:
        assert printed(command).strip() == output.strip(), command


def test_every_failure_of_verify_is_explained() -> None:
    """Each kind that the proof can tell of has its line in docs/verify.md, and no line is of a kind that is gone."""
    sources = [(ROOT / "toolkit/qdata/tokens" / f"{name}.py").read_text(encoding="utf-8") for name in VERIFY]
    kinds = {kind for source in sources for kind in re.findall(r'(?:fail\(\s*|yield )"([a-z ]+)"', source)}
    lines = (ROOT / "docs/verify.md").read_text(encoding="utf-8").splitlines()
    told = {kind for line in lines if line.startswith("| `") for kind in re.findall(r"`([^`]+)`", line.split("|")[1])}
    assert len(kinds) > 10
    assert kinds == told


VERIFY = ("verify", "proof", "proof_chat", "proof_rows", "proof_text", "proof_answers", "saved")

"""The folder `data/` under the current directory: what the last commands made, so that the next can go on from it."""

from __future__ import annotations

import json
from pathlib import Path

from qdata.errors import QdataError
from qdata.paths import from_here, whole

FOLDER = Path("data")
FILE = FOLDER / ".qdata.json"


def last(kind: str) -> Path:
    """The last output of a kind: `rows` (from convert) or `shards` (from render).

    Raises QdataError when there is none, or it is gone.
    """
    found = _read().get(kind)
    made_by = {"rows": "qdata convert", "shards": "qdata render"}[kind]
    if found is None:
        raise QdataError(
            f"no input given, and no {kind} were made here yet ({FILE}). Name a path, or run `{made_by}` first."
        )
    if not Path(found).exists():
        raise QdataError(f"no input given, and the last {kind} made here are gone: {found}. Name a path.")
    return Path(found)


def newest() -> Path:
    """The last output of any kind. Raises QdataError as `last`."""
    return last(next(reversed(_read()), "rows"))


def remember(kind: str, path: Path) -> None:
    """Notes an output as the last of its kind, and of all."""
    notes = {other: path for other, path in _read().items() if other != kind} | {kind: from_here(path).as_posix()}
    with whole(FILE, replace=True) as partial:
        partial.write_text(json.dumps(notes, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def check() -> None:
    """Raises QdataError where `remember` could not note an output: told before the work, not after it."""
    _read()


def _read() -> dict[str, str]:
    try:
        notes = json.loads(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise QdataError(
            f"{FOLDER}: a file is where the folder should be that notes what was made; rename it, or work elsewhere"
        ) from None
    except (ValueError, OSError):
        raise QdataError(f"{FILE}: not readable; remove it") from None
    if not isinstance(notes, dict) or not all(isinstance(path, str) for path in notes.values()):
        raise QdataError(f"{FILE}: not the note that qdata writes there (the last outputs by kind); remove it")
    return notes

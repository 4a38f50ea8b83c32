"""What a catalogue says of one data set."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named data set: on the hub, or in a local file or folder."""

    hub: str | None = None
    path: str | None = None  # local file or folder, relative to the file that holds this entry
    format: str | None = None
    map: dict[str, str] = field(default_factory=dict)  # as `--map`
    files: tuple[str, ...] = ()  # which files of the repository hold rows, and are fetched; default: all that look so
    subset: str | None = None  # configuration of the repository, as its README or a folder names it
    split: str | None = None  # only the files of this split
    folder: str | None = None  # only what lies below this folder of the repository
    max_samples: int | None = None
    sample: str | None = None  # folder below recipes/samples
    about: str = ""
    unsupported: str = ""  # why its rows cannot be read, where they cannot

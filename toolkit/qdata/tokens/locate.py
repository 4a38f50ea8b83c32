"""From what a user or a template names to a folder with `tokenizer.json`: local, cached, from the hub, or embedded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from qdata.errors import QdataError
from qdata.tokens import vocabulary
from qdata.tokens.template import Template

FILES = ("tokenizer.json", "tokenizer_config.json")


class Located(NamedTuple):
    """A tokenizer folder, the name it goes by, and where it came from: folder | cache | hub | offline."""

    directory: Path
    name: str
    origin: str


def locate(wanted: str | None, declared: str | None, cache: Path, template: str = "") -> Located:
    """The tokenizer `wanted`, or the one the template declares.

    A folder is taken as it is. A hub id is looked for in the hub's local cache, then on the hub (`HF_ENDPOINT` and
    `HF_HUB_OFFLINE` are honoured), then in the vocabulary embedded by the `offline` extra.
    Raises QdataError that names all three where none has it.
    """
    name = wanted or declared
    if name is None:
        raise QdataError(f"template {template} declares no tokenizer; name one with --tokenizer DIR|HUB_ID")
    if Path(name).is_dir():
        return Located(Path(name), name, "folder")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise QdataError(f"--tokenizer {name}: no such folder, and not a hub id of the form ORG/NAME")
    if cached := _cached(name):
        return Located(cached, name, "cache")
    reason = "not asked"
    try:
        return Located(_download(name), name, "hub")
    except _NotReachedError as error:
        reason = str(error)
    family = vocabulary.family_of(name)
    if family is None:
        raise QdataError(
            f"tokenizer {name}: not in the local hub cache; hub: {reason}; and no embedded vocabulary has it. "
            f"Pass --tokenizer DIR with a folder that holds tokenizer.json."
        )
    target = cache / "tokenizers" / family
    try:
        if not (target / FILES[0]).is_file():
            vocabulary.build(family, target)
    except ImportError:
        raise QdataError(
            f"tokenizer {name}: not in the local hub cache; hub: {reason}. Without a hub, install the embedded "
            f"vocabulary: pip install 'qdata[offline]'. Or pass --tokenizer DIR."
        ) from None
    return Located(target, name, "offline")


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, FILES[0])
    return Path(found).parent if isinstance(found, str) else None


class _NotReachedError(Exception):
    """The hub could not be asked, or has no such thing for us; says why."""


def _download(name: str) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise _NotReachedError("HF_HUB_OFFLINE is set")
    try:
        HfApi().model_info(name, timeout=5)  # one quick question: the download itself would retry for half a minute
        paths = [Path(hf_hub_download(name, file)) for file in FILES]
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise _NotReachedError(
            f"refused ({type(error).__name__}); a private or gated one needs `hf auth login`"
        ) from None
    except EntryNotFoundError:
        raise QdataError(f"tokenizer {name}: the hub's repository has no {FILES[0]}") from None
    except (HfHubHTTPError, OSError) as error:
        raise _NotReachedError(f"not reachable ({type(error).__name__})") from None
    except Exception as error:  # the HTTP client's own connection errors are not OSErrors
        if "connect" in type(error).__name__.lower() or "timeout" in type(error).__name__.lower():
            raise _NotReachedError(f"not reachable ({type(error).__name__})") from None
        raise
    return paths[0].parent


def save(located: Located, template: Template, target: Path) -> None:
    """A tokenizer folder as it is to be served: the located files, and this template in place of any other."""
    target.mkdir(parents=True)
    shutil.copyfile(located.directory / FILES[0], target / FILES[0])
    config_file = located.directory / FILES[1]
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    config.pop("chat_template", None)
    (target / FILES[1]).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for extra in ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"):
        if (located.directory / extra).is_file():
            shutil.copyfile(located.directory / extra, target / extra)
    (target / "chat_template.jinja").write_text(template.source, encoding="utf-8")

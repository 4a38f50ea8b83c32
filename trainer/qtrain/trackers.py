"""Where else a run is logged: TensorBoard unless told otherwise, SwanLab, W&B and others by `[train] report_to`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qdata.errors import QdataError, did_you_mean

_NAMES = ("clearml", "comet_ml", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")
"""Trackers by transformers' names, which are those of their packages."""
_HOMES = {"swanlab": ("SWANLAB_LOG_DIR", "SWANLAB_PROJECT"), "wandb": ("WANDB_DIR", "WANDB_PROJECT")}
"""The variables that say where a tracker writes and under which project; their own defaults lie beside the runs."""


def chosen(given: Mapping[str, Any]) -> list[str]:
    """The trackers of `[train] report_to`, by default TensorBoard where it is installed.

    Raises QdataError for one that nobody knows or whose package is missing.
    """
    asked = given.get("report_to")
    if asked is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    names = [asked] if isinstance(asked, str) else list(asked)
    if names in (["none"], ["all"]):
        return [] if names == ["none"] else [name for name in _NAMES if find_spec(name)]
    for name in names:
        if name not in _NAMES:
            raise QdataError(
                f"[train] report_to: {name!r} is not known; wanted none, all, or some of {', '.join(_NAMES)}."
                f"{did_you_mean(name, _NAMES)}"
            )
        if not find_spec(name):
            raise QdataError(
                f"[train] report_to = {name}: its package is not installed. `pip install {name}`, or leave it "
                "out: log.jsonl, loss.png and TensorBoard need nothing more"
            )
    return names


def settle(trainer: Any, run: Path, project: str) -> None:
    """Let the trainer's trackers write into the run's folder, under the recipe's name, unless variables say otherwise.

    `run`/tensorboard/, `run`/swanlab/, `run`/wandb/.
    """
    for name in trainer.args.report_to:
        if name in _HOMES:
            home, title = _HOMES[name]
            folder = run / ("" if name == "wandb" else name)  # W&B makes a folder of its name itself
            os.environ.setdefault(home, str(folder.resolve()))
            os.environ.setdefault(title, project)
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(run / "tensorboard")

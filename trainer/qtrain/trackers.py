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
    if "wandb" in trainer.args.report_to:
        os.environ.setdefault("WANDB_DIR", str(run.resolve()))  # W&B makes a folder of its name in it
        os.environ.setdefault("WANDB_PROJECT", project)
    if "swanlab" in trainer.args.report_to and trainer.is_world_process_zero():
        _begin_swanlab(run, project)
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(run / "tensorboard")


def _begin_swanlab(run: Path, project: str) -> None:
    """Begin SwanLab's run, which transformers 5.23 cannot: it takes `get_run()` for None, and since 0.8 that raises."""
    import swanlab

    home = Path(os.environ.get("SWANLAB_LOG_DIR", run / "swanlab"))
    home.mkdir(parents=True, exist_ok=True)
    try:
        swanlab.init(project=os.environ.get("SWANLAB_PROJECT", project), name=run.name, log_dir=str(home))
    except Exception as error:  # of its network, its login, its server: all of them mean that nothing would be logged
        why = str(error).rstrip(".")
        raise QdataError(
            f"[train] report_to: SwanLab does not begin: {why}. Log in with `swanlab login`, or set SWANLAB_MODE to "
            "offline (logs into the run, `swanlab sync` sends them later) or local"
        ) from None

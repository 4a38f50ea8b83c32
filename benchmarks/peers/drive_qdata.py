"""Ours: `qdata render`, with its defaults."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import driver
from datasets import load_from_disk


def prepare(job: driver.Job) -> tuple[Iterable[Any], str]:
    """The rows as published, or in the layout the variant names; the model's own tokenizer, our template."""
    layout, out = job["options"].get("layout", job["native"]), Path(job["work"]) / "shards"
    options = ["--from", layout, "--template", job["template"], *job["options"].get("more", [])]
    command = [sys.executable, "-m", "qdata.cli", "render", f"{job['data']}/{layout}.jsonl", *options]
    command += ["--tokenizer", job["model"], "--output", str(out)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    print(done.stderr)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return load_from_disk(str(out))["train"], " ".join(options)


driver.run(prepare, "qdata")

"""`python -m tests.train.zero_on_cpu …` is `python -m qtrain …`, with DeepSpeed over gloo on a CPU.

DeepSpeed can do that; accelerate and we leave CPUs out, so both are told that this one is a device.
"""

from __future__ import annotations

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from qtrain import sharding
from qtrain.cli import main

share_out = sharding.share_out


def shared(name: str | None, given: dict[str, Any], say: Any) -> None:
    share_out(name, given, say)
    if given.get("deepspeed"):
        given.pop("use_cpu", None)


sharding.has_gpu = lambda: True
sharding.share_out = shared
PartialState._prepare_backend = lambda self, *_, **__: ("gloo", DistributedType.MULTI_CPU)
main()

"""What a run or a profile is called in a line of output."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..benchmark.plan.runs import Spec
    from ..results import CostSpec, RunSpec


def label(spec: Spec) -> str:
    """A run or profile in a line: what differs from the method's defaults, and where it is done."""
    from ..results import FAITHFUL, RunSpec

    changed = "".join(f" {key}={value}" for key, value in _not_default(spec).items())
    if isinstance(spec, RunSpec):
        faithful = f"  {FAITHFUL}" if spec.protocol.faithful else ""
        searched = f"  {_of_search(spec)}" if spec.tuning else ""
        where = f"{spec.backbone.name}  {spec.task.name}"
        return f"{spec.method.name}{changed}  {where}  seed {spec.seed}{searched}{faithful}"
    return f"{spec.method.name}{changed}  {spec.backbone}  {_setting(spec)}"


def _of_search(spec: RunSpec) -> str:
    tuning = spec.tuning
    assert tuning
    what = "trial" if tuning.stage == "trial" else "tuned, as trial"
    return f"{what} {spec.trial}, learning rate {tuning.learning_rate:g}"


def _setting(spec: CostSpec) -> str:
    words = [f"batch {spec.batch_size}", spec.precision]
    words += [f"frozen in {spec.frozen_dtype}"] if spec.frozen_dtype != "float32" else []
    words += ["gradient checkpointing"] if spec.gradient_checkpointing else []
    words += [spec.optimizer] if spec.optimizer else []
    return ", ".join(words)


def _not_default(spec: Spec) -> dict[str, Any]:
    default = _default(spec.method.name)
    return {key: value for key, value in spec.method.config.items() if default.get(key) != value}


@lru_cache
def _default(method: str) -> dict[str, Any]:
    from ..registry import METHODS

    return METHODS[method].defaults(method)

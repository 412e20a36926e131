"""The command line that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ...results import FAITHFUL, RunSpec
from ...results.tuning import tuning_of
from ..formatting import plain


def reproduce(spec: RunSpec, defaults: Mapping[str, Any] | None, seeds: Sequence[int] = ()) -> str:
    """A ``peftmark run …`` for the shell; of a run of a search, that of all of it.

    Args:
        spec: what the run was asked to do.
        defaults: the method's default configuration, whose values need not be said; None where it is unknown,
            and every value is said.
        seeds: of the final runs of the run's search.
    """
    tuning = tuning_of(spec)
    words = ["peftmark", "run", "--method", spec.method.name, "--backbone", spec.backbone.name]
    words += ["--task", spec.task.name]
    for seed in seeds if tuning else [spec.seed]:
        words += ["--seed", str(seed)]
    if tuning:
        words += ["--trials", str(tuning.trials), "--studies", str(tuning.studies)]
        words += [] if tuning.tuner == "halton" else ["--tuner", tuning.tuner]
    words += ["--protocol", f"{spec.protocol.name}-v{spec.protocol.version}"]
    if spec.protocol.overrides.get("preset"):
        words += ["--preset", FAITHFUL]
    if spec.protocol.faithful:
        return shlex.join(words)  # all else is in the preset
    for key, value in sorted(spec.method.config.items()):
        if tuning and key in tuning.space:
            continue
        if defaults is None or key not in defaults or defaults[key] != value:
            words += ["--set", f"method.{key}={plain(value)}"]
    for key, value in sorted(spec.protocol.overrides.items()):
        words += ["--set", f"protocol.{key}={plain(value)}"] if key != "preset" else []
    return shlex.join(words)

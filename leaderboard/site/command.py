"""The command line that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ...results import FAITHFUL, RunSpec
from ...results.tuning import tuning_of
from ..accuracy.table import Row
from ..formatting import plain


def reproduce_row(row: Row) -> str:
    """A ``peftmark run …`` for the shell that repeats a row: all its tasks, all its seeds."""
    tasks = sorted(row.cells)
    seeds = sorted({run.spec.seed for run in row.runs})
    return reproduce(row.cells[tasks[0]].runs[0].spec, row.method.defaults, seeds, tasks)


def reproduce(
    spec: RunSpec, defaults: Mapping[str, Any] | None, seeds: Sequence[int] = (), tasks: Sequence[str] = ()
) -> str:
    """A ``peftmark run …`` for the shell; of a run of a search, that of all of it.

    Args:
        spec: what the run was asked to do.
        defaults: the method's default configuration, whose values need not be said; None where it is unknown,
            and every value is said.
        seeds: of the final runs of the run's search, or in place of the run's own where there are `tasks`.
        tasks: in place of the run's own.
    """
    tuning = tuning_of(spec)
    words = ["peftmark", "run", "--method", spec.method.name, "--backbone", spec.backbone.name]
    for task in tasks or [spec.task.name]:
        words += ["--task", task]
    for seed in seeds if tuning or tasks else [spec.seed]:
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

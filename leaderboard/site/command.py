"""The command line that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ...results import FAITHFUL, RunSpec
from ..formatting import plain


def reproduce(spec: RunSpec, defaults: Mapping[str, Any] | None) -> str:
    """A ``peftmark run …`` for the shell.

    Args:
        spec: what the run was asked to do.
        defaults: the method's default configuration, whose values need not be said; None where it is unknown,
            and every value is said.
    """
    words = ["peftmark", "run", "--method", spec.method.name, "--backbone", spec.backbone.name]
    words += ["--task", spec.task.name, "--seed", str(spec.seed)]
    words += ["--protocol", f"{spec.protocol.name}-v{spec.protocol.version}"]
    if spec.protocol.overrides.get("preset"):
        words += ["--preset", FAITHFUL]
    if spec.protocol.faithful:
        return shlex.join(words)  # all else is in the preset
    for key, value in sorted(spec.method.config.items()):
        if defaults is None or key not in defaults or defaults[key] != value:
            words += ["--set", f"method.{key}={plain(value)}"]
    for key, value in sorted(spec.protocol.overrides.items()):
        words += ["--set", f"protocol.{key}={plain(value)}"] if key != "preset" else []
    return shlex.join(words)

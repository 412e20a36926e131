"""What `peftmark list` and `peftmark show` look things up in."""

from __future__ import annotations

from typing import Any

from ..benchmark.plan.suite import SUITES
from ..registry import BACKBONES, METHODS, TASKS, Registry

KINDS: dict[str, Registry[Any]] = {"methods": METHODS, "backbones": BACKBONES, "tasks": TASKS, "suites": SUITES}

"""peftmark: a standardized benchmark suite for parameter-efficient fine-tuning in computer vision.

Importing it imports no torch; names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapting import adapt
    from .backbones import Anatomy
    from .benchmark.plan.suite import SUITES
    from .errors import PeftmarkError
    from .methods import Method
    from .registry import BACKBONES, METHODS, TASKS
    from .results import load_costs, load_predictions, load_results
    from .tasks import Task

__version__ = "0.1.0"

_HOME = {
    "BACKBONES": "registry",
    "METHODS": "registry",
    "SUITES": "benchmark.plan.suite",
    "TASKS": "registry",
    "Anatomy": "backbones",
    "Method": "methods",
    "PeftmarkError": "errors",
    "Task": "tasks",
    "adapt": "adapting",
    "load_costs": "results",
    "load_predictions": "results",
    "load_results": "results",
}

__all__ = [
    "BACKBONES",
    "METHODS",
    "SUITES",
    "TASKS",
    "Anatomy",
    "Method",
    "PeftmarkError",
    "Task",
    "adapt",
    "load_costs",
    "load_predictions",
    "load_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'peftmark' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

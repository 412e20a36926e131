"""peftmark: a standardized benchmark suite for parameter-efficient fine-tuning in computer vision.

Importing it imports no torch; names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapting import adapt
    from .backbones import Anatomy
    from .benchmark.plan.protocol import load_protocol
    from .benchmark.plan.suite import SUITES
    from .benchmark.run.step import TrainingStep, make_optimizer
    from .benchmark.run.training import make_schedule
    from .errors import PeftmarkError
    from .methods import Context, Method
    from .methods.bridge.export import export_peft
    from .registry import BACKBONES, METHODS, TASKS
    from .results import load_costs, load_predictions, load_results
    from .tasks import Classification, Objective, OpenVocabulary, Task

__version__ = "0.1.0"

_HOME = {
    "BACKBONES": "registry",
    "METHODS": "registry",
    "SUITES": "benchmark.plan.suite",
    "TASKS": "registry",
    "Anatomy": "backbones",
    "Classification": "tasks",
    "Context": "methods",
    "Method": "methods",
    "Objective": "tasks",
    "OpenVocabulary": "tasks",
    "PeftmarkError": "errors",
    "Task": "tasks",
    "TrainingStep": "benchmark.run.step",
    "adapt": "adapting",
    "export_peft": "methods.bridge.export",
    "load_costs": "results",
    "load_predictions": "results",
    "load_protocol": "benchmark.plan.protocol",
    "load_results": "results",
    "make_optimizer": "benchmark.run.step",
    "make_schedule": "benchmark.run.training",
}

__all__ = [
    "BACKBONES",
    "METHODS",
    "SUITES",
    "TASKS",
    "Anatomy",
    "Classification",
    "Context",
    "Method",
    "Objective",
    "OpenVocabulary",
    "PeftmarkError",
    "Task",
    "TrainingStep",
    "adapt",
    "export_peft",
    "load_costs",
    "load_predictions",
    "load_protocol",
    "load_results",
    "make_optimizer",
    "make_schedule",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'peftmark' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

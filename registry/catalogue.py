"""The catalogues of methods, backbones and tasks. Listing them imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .registry import Registry, scan_package

if TYPE_CHECKING:
    from ..backbones.backbone import Backbone
    from ..methods.method import Method
    from ..tasks.task import Task

_ROOT = Path(__file__).resolve().parent.parent

METHODS: Registry[type[Method]] = Registry(
    "method",
    lambda: scan_package("METHODS", "peftmark.methods", _ROOT / "methods"),
    required=("family", "tracks"),
)
BACKBONES: Registry[type[Backbone]] = Registry(
    "backbone",
    lambda: scan_package("BACKBONES", "peftmark.backbones", _ROOT / "backbones"),
    required=("family",),
)
TASKS: Registry[type[Task]] = Registry(
    "task",
    lambda: scan_package("TASKS", "peftmark.tasks", _ROOT / "tasks"),
    required=("track", "group"),
)

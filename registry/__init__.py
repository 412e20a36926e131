"""Registries of methods, backbones, tasks and suites, and the plug-ins that add to them. Imports no torch."""

from .catalogue import BACKBONES, METHODS, SUITES, TASKS, suite_entry
from .plugins import import_file, load_plugins
from .registry import Entry, Registry, scan_package

__all__ = [
    "BACKBONES",
    "METHODS",
    "SUITES",
    "TASKS",
    "Entry",
    "Registry",
    "import_file",
    "load_plugins",
    "scan_package",
    "suite_entry",
]

"""Registries of methods, backbones and tasks, and the plug-ins that add to them. Imports no torch."""

from .catalogue import BACKBONES, METHODS, TASKS
from .plugins import import_file, load_plugins
from .registry import Entry, Registry, scan_package

__all__ = [
    "BACKBONES",
    "METHODS",
    "TASKS",
    "Entry",
    "Registry",
    "import_file",
    "load_plugins",
    "scan_package",
]

"""The four catalogues. Listing them imports no torch."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PeftmarkError
from .registry import Entry, Registry, scan_package

if TYPE_CHECKING:
    from ..backbones.backbone import Backbone
    from ..benchmark.plan.suite import Suite
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


def _scan_suites() -> Iterator[Entry[Any]]:
    for path in sorted((_ROOT / "benchmark" / "suites").glob("*.toml")):
        yield suite_entry(path)


def suite_entry(path: Path) -> Entry[Any]:
    """The catalogue entry of a suite file; its name is the file's stem.

    Raises:
        PeftmarkError: where the file is not TOML.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeftmarkError(f"{path} is not a TOML file: {error}") from error

    def load() -> Suite:
        # By name: the registry is the lowest layer and knows nothing of the harness until a suite is asked for.
        return importlib.import_module("peftmark.benchmark.plan.suite").parse_suite(path.stem, table, origin=str(path))

    return Entry(
        name=path.stem,
        metadata={"protocol": table.get("protocol", "")},
        doc=str(table.get("description", "")),
        origin=str(path),
        qualname=path.stem,
        load=load,
    )


SUITES: Registry[Suite] = Registry("suite", _scan_suites)

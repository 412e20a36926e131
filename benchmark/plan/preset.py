"""Faithful presets: the recipe that a method's official repository publishes, as data (``presets/<method>.toml``)."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from ...errors import PeftmarkError
from ...results import FAITHFUL

PRESETS = Path(__file__).parent.parent / "presets"

CHANGED = f"{FAITHFUL}, with changes"
"""What a record says that was made with a preset and a ``--set`` on top of it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the protocol, and of the method's hyper-parameters."""

    protocol: dict[str, Any] = {}
    config: dict[str, Any] = {}


class Recipe(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[recipes]]``: how a method is trained on some tasks.

    Attributes:
        tasks: names or wildcards; the first recipe that matches a task is its recipe.
        by_task: what is set otherwise for one task.
    """

    tasks: list[str]
    by_task: dict[str, Settings] = {}


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A preset file.

    Attributes:
        repository, commit, files: where its values were read.
        not_expressed: what of the published recipe the harness cannot do, or the repository does not say.
    """

    method: str
    paper: str
    repository: str
    commit: str
    files: list[str]
    not_expressed: list[str]
    recipes: list[Recipe]

    def settings(self, task: str) -> Settings | None:
        """What to set for a task; None where there is no recipe for it."""
        for recipe in self.recipes:
            if any(fnmatchcase(task, pattern) for pattern in recipe.tasks):
                own = recipe.by_task.get(task, Settings())
                return Settings(protocol=recipe.protocol | own.protocol, config=recipe.config | own.config)
        return None

    def summary(self) -> str:
        """Where it is from and what it leaves out, in a line."""
        return (
            f"faithful preset of {self.method}, after {self.repository}; not expressed: {'; '.join(self.not_expressed)}"
        )


@lru_cache
def load_presets() -> Mapping[str, Preset]:
    """All presets, by method.

    Raises:
        PeftmarkError: where a file is not a preset; it names the file.
    """
    presets = {}
    for path in sorted(PRESETS.glob("*.toml")):
        try:
            preset = msgspec.toml.decode(path.read_bytes(), type=Preset)
        except msgspec.MsgspecError as error:
            raise PeftmarkError(f"preset {path.name}: {error}") from error
        presets[preset.method] = preset
    return presets

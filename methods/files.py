"""Files that methods read besides data. A spec names them by what is in them, not by where they lie on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_known: dict[str, Path] = {}


def know_files(files: Mapping[str, Path]) -> None:
    """Remember where the content of a sha256 lies: in the process that a user tells, then in its workers."""
    _known.update(files)


def known_files() -> dict[str, Path]:
    """What `know_files` was told, by sha256."""
    return dict(_known)

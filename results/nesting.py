"""How deep values may be nested that were read from a file: what is deeper ends whatever goes down into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import PeftmarkError

LEVELS = 32
"""More than any configuration has."""


def check_nesting(source: str | Path, *values: Any, what: str = "record") -> None:
    """
    Raises:
        PeftmarkError: where lists and tables are nested deeper than `LEVELS`; names `source`.
    """
    if any(_deeper(value, LEVELS) for value in values):
        raise PeftmarkError(f"{source} is not a {what}: it is nested more than {LEVELS} levels deep")


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_deeper(each, levels - 1) for each in inner if isinstance(each, (dict, list)))

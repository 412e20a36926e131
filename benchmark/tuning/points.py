"""The points that trials' values come from: a committed list, the same for every method and on every machine.

``points.csv`` was drawn once, by ``scipy.stats.qmc.Halton(6, scramble=True, seed=0).random(64)`` of scipy 1.17, and
rounded to four digits. It is the list that counts, not the seed: versions of scipy scramble differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import PeftmarkError
from ...methods.search_space import Dimension
from ...results import canonical_json

POINTS = Path(__file__).parent / "points.csv"


@cache
def points() -> tuple[tuple[float, ...], ...]:
    """Each in the unit cube: a coordinate a dimension of a search space, in its order."""
    lines = POINTS.read_text(encoding="utf-8").splitlines()
    return tuple(tuple(float(number) for number in line.split(",")) for line in lines)


@cache
def points_sha256() -> str:
    """Of the list's numbers."""
    return hashlib.sha256(canonical_json(points())).hexdigest()


def values(space: Mapping[str, Dimension], trial: int) -> dict[str, Any]:
    """What a trial, counted from 1, sets of what is searched: trial 0 is the default.

    Raises:
        PeftmarkError: where the list has no such point, or not as many coordinates.
    """
    listed = points()
    if not 1 <= trial <= len(listed):
        raise PeftmarkError(f"there are points for {len(listed)} trials beside the default: give --trials fewer")
    if len(space) > len(listed[0]):
        raise PeftmarkError(f"{len(space)} things are searched, points have {len(listed[0])} coordinates: search fewer")
    shares = listed[trial - 1]
    return {name: dimension.at(share) for (name, dimension), share in zip(space.items(), shares, strict=False)}

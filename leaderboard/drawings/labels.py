"""Where the names of points stand: beside them, where nothing stands yet, else nowhere. As `static/front.js` has it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""

_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1), (1, 2), (1, -2), (-1, 2), (-1, -2))
"""From a point, which way a name lies, in the order of preference; 2 is half a line further."""


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    points: Sequence[tuple[float, float]],
    half: float,
    lines: Sequence[Box],
    frame: Box,
) -> list[Box | None]:
    """A box for each label, the first come first served; None where every place is taken.

    No label touches another or a point, leaves the frame, or is nearer to another point than to its own.

    Args:
        anchors: those of the points that the labels are of.
        sizes: width and height of each label.
        points: all that are drawn, of twice `half` in width and height.
        lines: upright and level lines, which labels rather leave alone.
    """
    taken = [(x - half, y - half, x + half, y + half) for x, y in points]
    gap = 1.4 * half
    placed: list[Box | None] = []
    for anchor, (width, height) in zip(anchors, sizes, strict=True):
        x, y = anchor
        best: tuple[int, Box] | None = None
        for number, (right, up) in enumerate(_SIDES):
            near = gap * (0.7 if right and up else 1)
            left = x - width / 2 if not right else x + near if right > 0 else x - near - width
            low = y - height / 2 if not up else y + near if up > 0 else y - near - height
            low += height * up / 4 if abs(up) > 1 else 0
            box = (left, low, left + width, low + height)
            if not _inside(box, frame) or any(overlap(box, other) for other in taken):
                continue
            own = distance(box, anchor)
            if any(distance(box, point) < own for point in points):
                continue
            cost = number + 20 * sum(overlap(box, line) for line in lines)
            if best is None or cost < best[0]:
                best = cost, box
        placed.append(best[1] if best else None)
        if best:
            taken.append(best[1])
    return placed


def overlap(one: Box, other: Box) -> bool:
    """
    >>> overlap((0, 0, 2, 2), (1, 1, 3, 3)), overlap((0, 0, 1, 1), (1, 0, 2, 1))
    (True, False)
    """
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def distance(box: Box, point: tuple[float, float]) -> float:
    """
    >>> distance((0, 0, 2, 2), (5, 6)), distance((0, 0, 2, 2), (1, 1))
    (5.0, 0.0)
    """
    (left, low, right, high), (x, y) = box, point
    return math.hypot(max(left - x, 0, x - right), max(low - y, 0, y - high))


def _inside(box: Box, frame: Box) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]


def drawable(text: str, length: int) -> str:
    r"""A text as a drawing can show it: without what is no character or turns others round, and cut.

    >>> drawable("a\x00b\u202ec\nd", 10), drawable("adapter rank=16", 9)
    ('abc d', 'adapter …')
    """
    shown = "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"

"""The sprite atlas: emoji in five drawing styles, aligned by name (needs numpy and pillow only)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
SPRITE_SIZE = 48
STYLES = ("noto", "fluent", "emojione", "fxemoji", "twemoji")
HELD_OUT_STYLE = "twemoji"
"""The style that pretraining never sees.

It covers every emoji, so no class is lost under the shift. It is flat and outline-free where noto is shaded, fluent is
rounded and fxemoji is outlined, and its nearest relative, emojione, is drawn for barely more than half of the emoji: a
real change of domain, yet one that a network can bridge.
"""


@dataclass(frozen=True)
class Atlas:
    """Sprites of E emoji in S styles; row e means the same emoji in every array.

    ``sprites``: uint8 (S, E, 48, 48, 4), RGBA with straight alpha, zero where a style lacks the emoji.
    ``present``: bool (S, E), whether the style draws the emoji.
    ``held_out``: bool (E,), the fifth of the emoji that pretraining never sees in any style. Emoji that differ only in
    gender are on one side of the split together; every subgroup gives about a fifth.
    ``names`` are unique; ``tags`` are synonyms, ``groups`` and ``subgroups`` the emoji's two-level taxonomy.
    """

    styles: tuple[str, ...]
    names: tuple[str, ...]
    hexcodes: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    subgroups: tuple[str, ...]
    sprites: np.ndarray
    present: np.ndarray
    held_out: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def style(self, name: str) -> int:
        """The index of a style in ``sprites`` and ``present``."""
        return self.styles.index(name)

    @property
    def seen_styles(self) -> np.ndarray:
        """The indices of the styles that pretraining may draw from, int64 (S - 1,)."""
        return np.array([i for i, name in enumerate(self.styles) if name != HELD_OUT_STYLE])


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Read the atlas once a process; its arrays are read-only, so that callers can share them."""
    table = json.loads((FOLDER / "atlas.json").read_text(encoding="utf-8"))
    emoji = table["emoji"]
    styles = tuple(table["styles"])
    sprites = np.stack([_read_sheet(FOLDER / f"atlas_{style}.webp", len(emoji)) for style in styles])
    present = np.array([[style in row["styles"] for row in emoji] for style in styles])
    held_out = np.array([row["held_out"] for row in emoji])
    for array in (sprites, present, held_out):
        array.setflags(write=False)
    return Atlas(
        styles=styles,
        names=tuple(row["name"] for row in emoji),
        hexcodes=tuple(row["hexcode"] for row in emoji),
        tags=tuple(tuple(row["tags"]) for row in emoji),
        groups=tuple(row["group"] for row in emoji),
        subgroups=tuple(row["subgroup"] for row in emoji),
        sprites=sprites,
        present=present,
        held_out=held_out,
    )


def _read_sheet(path: Path, count: int) -> np.ndarray:
    """Cut a sheet, sprites in row-major order, into uint8 (count, 48, 48, 4)."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGBA"))
    rows, columns = sheet.shape[0] // SPRITE_SIZE, sheet.shape[1] // SPRITE_SIZE
    grid = sheet.reshape(rows, SPRITE_SIZE, columns, SPRITE_SIZE, 4).swapaxes(1, 2)
    return grid.reshape(rows * columns, SPRITE_SIZE, SPRITE_SIZE, 4)[:count]

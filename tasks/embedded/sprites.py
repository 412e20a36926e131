"""Scenes of emoji sprites: which emoji, drawn in which style, where, how large and how turned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...backbones.embedded.atlas import load_atlas
from ...backbones.embedded.scenes import IMAGE_SIZE, backgrounds, colours, compose, uniform
from .generated import GeneratedTask, atlas_digest

PLACES_TRIED = 64


@dataclass(frozen=True)
class Scenes:
    """N scenes of up to K sprites, the first at the bottom. Units as in `backbones.embedded.scenes`.

    Attributes:
        emoji: int64 (N, K), rows of the atlas.
        style: int64 (N, K), indices of the atlas's styles.
        centre: (N, K, 2), pixels.
        size: (N, K), pixels; 0 where a scene has fewer sprites.
        angle: (N, K), radians, clockwise.
        labels: int64 (N,).
    """

    emoji: Tensor
    style: Tensor
    centre: Tensor
    size: Tensor
    angle: Tensor
    labels: Tensor

    def paint(self, background: Tensor) -> Tensor:
        """Onto backgrounds (N, 3, H, W) in [0, 1]."""
        return compose(drawings(self.style, self.emoji), self.centre, self.size, self.angle, background)


class SpriteTask(GeneratedTask):
    """A task made of the atlas's sprites.

    Class attributes:
        clutter: of the backgrounds, from 0 (one flat colour) to 1 (as varied as pretraining's).
        shares: of the emoji that each split may use, where a task keeps the splits' emoji apart.
    """

    clutter: ClassVar[float] = 1.0
    shares: ClassVar[Mapping[str, float]] = {"train": 0.5, "validation": 0.15, "test": 0.35}

    def sources(self) -> dict[str, str]:
        return {"atlas": atlas_digest()}

    def backgrounds(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 3, 40, 40) in [0, 1]."""
        flat = colours((n,), generator)[..., None, None]
        return torch.lerp(flat, backgrounds(n, IMAGE_SIZE, generator), self.clutter)

    def share(self, emoji: Tensor, split: str) -> Tensor:
        """The part of `emoji` that `split` may use; the splits' parts are disjoint, and no family is in two of them."""
        keys = [family(load_atlas().hexcodes[row]) for row in emoji.tolist()]
        names = sorted(set(keys))
        order = torch.randperm(len(names), generator=self.generator("identities")).tolist()
        bounds = np.round(np.cumsum([0, *self.shares.values()]) * len(names)).astype(int)
        position = list(self.shares).index(split)
        mine = {names[index] for index in order[bounds[position] : bounds[position + 1]]}
        return emoji[torch.tensor([key in mine for key in keys])]


def family(hexcode: str) -> str:
    """One key for an emoji's man, woman and person variants, which look alike."""
    parts = [part for part in hexcode.upper().split("-") if part not in ("FE0F", "200D", "2640", "2642")]
    return "-".join("1F9D1" if part in ("1F468", "1F469") else part for part in parts)


def drawings(style: Tensor, emoji: Tensor) -> Tensor:
    """Sprites uint8 (..., 4, 48, 48), RGBA with straight alpha, of styles and emoji (...)."""
    return torch.from_numpy(load_atlas().sprites[style.numpy(), emoji.numpy()]).movedim(-1, -3)


def emoji_of(kinds: Sequence[str], styles: Sequence[str], fill: float = 0.0, without: Sequence[str] = ()) -> Tensor:
    """Rows of the atlas of the given kinds, drawn in all of `styles`; int64 (E,), ascending.

    Args:
        kinds: wildcards over ``group/subgroup``.
        without: names that are left out.
        fill: the least share of the square that the drawing covers, in every one of the styles.
    """
    atlas = load_atlas()
    chosen = [
        row
        for row, (group, subgroup) in enumerate(zip(atlas.groups, atlas.subgroups, strict=True))
        if any(fnmatchcase(f"{group}/{subgroup}", kind) for kind in kinds) and atlas.names[row] not in without
    ]
    rows = np.array(chosen)
    indices = [atlas.style(style) for style in styles]
    rows = rows[atlas.present[indices][:, rows].all(0)]
    covered = np.stack([atlas.sprites[index, rows, :, :, 3].mean((1, 2)) / 255 for index in indices]).min(0)
    return torch.from_numpy(rows[covered >= fill])


def pick(pool: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Members of `pool`, drawn with replacement."""
    return pool[torch.randint(len(pool), shape, generator=generator)]


def pick_styles(emoji: Tensor, styles: Sequence[str], generator: torch.Generator) -> Tensor:
    """For each emoji (...) one of the `styles` that draw it; int64 (...)."""
    atlas = load_atlas()
    indices = torch.tensor([atlas.style(style) for style in styles])
    weights = torch.from_numpy(atlas.present[indices.numpy()].T.astype(np.float32))[emoji.flatten()]
    return indices[torch.multinomial(weights, 1, generator=generator)].view_as(emoji)


def scatter(size: Tensor, spacing: float, generator: torch.Generator, first: Tensor | None = None) -> Tensor:
    """Centres (N, K, 2) inside the image for sprites of `size` (N, K), apart from each other where there is room.

    Two sprites' centres keep `spacing` times the mean of their sizes; 1 is that of touching discs. A sprite of size 0
    takes no room. ``first``: (N, 2), where the first sprites already are.
    """
    n, k = size.shape
    centre = torch.empty(n, k, 2)
    if first is not None:
        centre[:, 0] = first
    for index in range(0 if first is None else 1, k):
        half = size[:, index, None, None] / 2
        places = half + torch.rand(n, PLACES_TRIED, 2, generator=generator) * (IMAGE_SIZE - 2 * half)
        distance = (places[:, :, None] - centre[:, None, :index]).square().sum(-1).sqrt()
        needed = spacing * (size[:, :index] + size[:, index, None]) / 2 * (size[:, :index] > 0)
        clearance = torch.cat((distance - needed[:, None], torch.zeros(n, PLACES_TRIED, 1)), dim=-1).amin(-1)
        centre[:, index] = places[torch.arange(n), clearance.argmax(1)]  # the first free one, or else the roomiest
    return centre


def single_scenes(
    emoji: Tensor,
    labels: Tensor,
    styles: Sequence[str],
    size: tuple[float, float],
    turn: float,
    generator: torch.Generator,
) -> Scenes:
    """One sprite a scene: of emoji (N,), its size between two bounds, anywhere inside, turned by at most `turn`."""
    sides = uniform((len(emoji), 1), *size, generator)
    return Scenes(
        emoji=emoji[:, None],
        style=pick_styles(emoji[:, None], styles, generator),
        centre=scatter(sides, 1.0, generator),
        size=sides,
        angle=uniform(sides.shape, -turn, turn, generator),
        labels=labels,
    )

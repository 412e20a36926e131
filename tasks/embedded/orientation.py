"""Structured images: turned how far."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from ...registry import TASKS
from ..task import Split
from .generated import balanced_labels, to_uint8
from .sprites import Scenes, SpriteTask, emoji_of, pick, single_scenes


@TASKS.register("embedded/orientation", track="image", group="structured")
class Orientation(SpriteTask):
    """How far an emoji is turned clockwise, in eight steps of 45 degrees.

    One face of a human, a cat, a devil, …, on a faintly patterned background of 40 pixels, in styles that pretraining
    saw (nearly upright). The angle is within 6 degrees of its step's. Eight classes (chance 12.5%), 400 training, 100
    validation and 500 test images, seed 6. No emoji is in two splits: what is up must be read off a new face.
    """

    seed = 6
    styles = ("noto", "fluent")
    kinds = ("smileys-emotion/*face*",)
    without = ("upside-down face", "rolling on the floor laughing")
    fill = 0.3
    clutter = 0.1
    steps = 8
    looseness = math.radians(6)
    size = (28.0, 38.0)

    def emoji(self, split: str) -> Tensor:
        """The emoji of a split."""
        return self.share(emoji_of(self.kinds, self.styles, self.fill, self.without), split)

    def scenes(self, split: str) -> Scenes:
        generator = self.generator(f"{split} scenes")
        labels = balanced_labels(self.sizes[split], self.steps, generator)
        emoji = pick(self.emoji(split), labels.shape, generator)
        upright = single_scenes(emoji, labels, self.styles, self.size, self.looseness, generator)
        return replace(upright, angle=upright.angle + labels[:, None] * (2 * math.pi / self.steps))

    def make(self, split: str) -> Split:
        scenes, generator = self.scenes(split), self.generator(f"{split} look")
        images = scenes.paint(self.backgrounds(len(scenes.labels), generator))
        return Split(to_uint8(images), scenes.labels, tuple(f"{360 * i // self.steps}°" for i in range(self.steps)))

"""Structured images: how many."""

from __future__ import annotations

import torch

from ...backbones.embedded.scenes import uniform
from ...registry import TASKS
from ..task import Split
from .generated import balanced_labels, to_uint8
from .sprites import Scenes, SpriteTask, emoji_of, pick, pick_styles, scatter


@TASKS.register("embedded/count", track="image", group="structured")
class Count(SpriteTask):
    """How many emoji an image shows: one to six.

    Different emoji (faces, animals, food) in styles that pretraining saw, scattered over a faintly patterned background
    of 40 pixels. The area that they cover together has the same distribution for every count, so that size does not
    give it away. Six classes (chance 16.7%), 400 training, 100 validation and 500 test images, seed 4.
    """

    seed = 4
    styles = ("noto", "fluent")
    kinds = ("smileys-emotion/face-*", "smileys-emotion/cat-face", "animals-nature/animal-*", "food-drink/food-*")
    fill = 0.55
    clutter = 0.1
    most = 6
    area = (400.0, 640.0)  # of all sprites' squares together, square pixels
    unevenness = 0.3
    turn = 0.5
    spacing = 1.0

    def scenes(self, split: str) -> Scenes:
        generator = self.generator(f"{split} scenes")
        n = self.sizes[split]
        labels = balanced_labels(n, self.most, generator)
        weight = uniform((n, self.most), 1 - self.unevenness, 1 + self.unevenness, generator)
        weight = weight * (torch.arange(self.most) <= labels[:, None])
        area = uniform((n, 1), *self.area, generator) * weight / weight.sum(1, keepdim=True)
        size = area.sqrt()
        emoji = pick(emoji_of(self.kinds, self.styles, self.fill), (n, self.most), generator)
        return Scenes(
            emoji=emoji,
            style=pick_styles(emoji, self.styles, generator),
            centre=scatter(size, self.spacing, generator),
            size=size,
            angle=uniform((n, self.most), -self.turn, self.turn, generator),
            labels=labels,
        )

    def make(self, split: str) -> Split:
        scenes, generator = self.scenes(split), self.generator(f"{split} look")
        images = scenes.paint(self.backgrounds(len(scenes.labels), generator))
        return Split(to_uint8(images), scenes.labels, ("one", "two", "three", "four", "five", "six"))

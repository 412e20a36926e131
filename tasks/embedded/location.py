"""Structured images: where."""

from __future__ import annotations

import torch

from ...backbones.embedded.scenes import IMAGE_SIZE, uniform
from ...registry import TASKS
from ..task import Split
from .generated import balanced_labels, to_uint8
from .sprites import Scenes, SpriteTask, emoji_of, pick, pick_styles, scatter


@TASKS.register("embedded/location", track="image", group="structured")
class Location(SpriteTask):
    """In which cell of a three by three grid the centre of a face lies.

    A smiley (the target) beside food or drink (not the target), in styles that pretraining saw, on a faintly patterned
    background of 40 pixels. Nine classes (chance 11.1%), 400 training, 100 validation and 500 test images, seed 5. A
    backbone that was trained to name things wherever they are has to be taught to tell where, and which thing is meant.
    """

    seed = 5
    styles = ("noto", "fluent")
    target_kinds = ("smileys-emotion/face-*",)
    distractor_kinds = ("food-drink/*",)
    distractors = 1
    fill = 0.5
    clutter = 0.2
    cells = 3  # along each side
    margin = 1.0  # of the centre from its cell's edges, pixels
    inset = 4.0  # and from the image's
    target_size = (14.0, 18.0)
    distractor_size = (8.0, 14.0)
    turn = 0.3
    spacing = 0.9

    def scenes(self, split: str) -> Scenes:
        generator = self.generator(f"{split} scenes")
        n, others = self.sizes[split], self.distractors
        labels = balanced_labels(n, self.cells**2, generator)
        cell = torch.stack((labels % self.cells, labels // self.cells), dim=1) * (IMAGE_SIZE / self.cells)
        low = (cell + self.margin).clamp(min=self.inset)
        high = (cell + IMAGE_SIZE / self.cells - self.margin).clamp(max=IMAGE_SIZE - self.inset)
        target = low + torch.rand(n, 2, generator=generator) * (high - low)
        size = torch.cat(
            (
                uniform((n, 1), *self.target_size, generator),
                uniform((n, others), *self.distractor_size, generator),
            ),
            dim=1,
        )
        emoji = torch.cat(
            (
                pick(emoji_of(self.target_kinds, self.styles, self.fill), (n, 1), generator),
                pick(emoji_of(self.distractor_kinds, self.styles, self.fill), (n, others), generator),
            ),
            dim=1,
        )
        return Scenes(
            emoji=emoji,
            style=pick_styles(emoji, self.styles, generator),
            centre=scatter(size, self.spacing, generator, first=target),
            size=size,
            angle=uniform(size.shape, -self.turn, self.turn, generator),
            labels=labels,
        )

    def make(self, split: str) -> Split:
        scenes, generator = self.scenes(split), self.generator(f"{split} look")
        images = scenes.paint(self.backgrounds(len(scenes.labels), generator))
        cells = [divmod(label, self.cells) for label in range(self.cells**2)]
        names = tuple(f"row {row + 1}, column {column + 1}" for row, column in cells)
        return Split(to_uint8(images), scenes.labels, names)

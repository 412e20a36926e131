"""Video: which kind of emoji shows itself in glimpses."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backbones.embedded.scenes import IMAGE_SIZE, compose, uniform
from ...registry import TASKS
from ..task import Split
from .generated import balanced_labels, to_uint8
from .sprites import SpriteTask, drawings, emoji_of, pick, pick_styles


@TASKS.register("embedded/glimpses", track="video", group="appearance")
class Glimpses(SpriteTask):
    """Which kind of thing shows itself in three of eight frames: six kinds of emoji (chance 16.7%).

    Eight frames of 40 pixels: a still background, with noise that changes; before it, in three frames at random times,
    an emoji in a style that pretraining saw, each time at another place. One frame most often shows nothing; what
    counts is what is seen over the clip, in whatever order, so an average over frames can tell. 200 training, 80
    validation and 200 test clips, seed 8.
    """

    seed = 8
    num_frames = 8
    sizes = {"train": 200, "validation": 80, "test": 200}
    styles = ("noto", "fluent")
    kinds = {
        "face": ("smileys-emotion/face-*",),
        "animal": ("animals-nature/animal-*",),
        "plant": ("animals-nature/plant-*",),
        "food": ("food-drink/food-*",),
        "vehicle": ("travel-places/transport-*",),
        "clothing": ("objects/clothing",),
    }
    fill = 0.3
    size = (24.0, 34.0)  # pixels
    shown = 3  # frames
    noise = 0.02  # standard deviation, of values in [0, 1]

    def make(self, split: str) -> Split:
        generator, n = self.generator(split), self.sizes[split]
        labels = balanced_labels(n, len(self.kinds), generator)
        return Split(self.clips(self.emoji(labels, generator), generator), labels, tuple(self.kinds))

    def emoji(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Rows of the atlas (n, 1), each of the kind that its label says."""
        emoji = torch.empty(len(labels), 1, dtype=torch.int64)
        for label, kinds in enumerate(self.kinds.values()):
            members = (labels == label).nonzero().squeeze(1)
            emoji[members] = pick(emoji_of(kinds, self.styles, self.fill), (len(members), 1), generator)
        return emoji

    def clips(self, emoji: Tensor, generator: torch.Generator) -> Tensor:
        """Emoji (n, 1), rows of the atlas -> clips uint8 (n, 8, 3, 40, 40)."""
        n, t = len(emoji), self.num_frames
        size = uniform((n, 1), *self.size, generator)
        sprites = drawings(pick_styles(emoji, self.styles, generator), emoji).repeat_interleave(t, 0)
        places = IMAGE_SIZE / 2 + uniform((n, t, 2), -1, 1, generator) * (IMAGE_SIZE - size[..., None]) / 2
        size = torch.where(self.visible(n, generator), size, 0.0).view(n * t, 1)  # of size 0, a sprite is left out
        background = self.backgrounds(n, generator).repeat_interleave(t, 0)
        images = compose(sprites, places.view(n * t, 1, 2), size, torch.zeros_like(size), background)
        images += self.noise * torch.randn(images.shape, generator=generator)
        return to_uint8(images).view(n, t, 3, IMAGE_SIZE, IMAGE_SIZE)

    def visible(self, n: int, generator: torch.Generator) -> Tensor:
        """In which frames the emoji is, bool (n, 8): `shown` of each clip."""
        return torch.rand(n, self.num_frames, generator=generator).argsort(1) < self.shown

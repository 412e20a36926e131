"""Video: which way an emoji moves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...backbones.embedded.scenes import IMAGE_SIZE, compose, uniform
from ...registry import TASKS
from ..task import Split
from .generated import balanced_labels, to_uint8
from .sprites import SpriteTask, drawings, emoji_of, pick, pick_styles


@TASKS.register("embedded/motion", track="video", group="temporal")
class Motion(SpriteTask):
    """In which order an emoji visits eight places on a straight path: there, back, or there and back from either end.

    Eight frames of 40 pixels: one emoji in a style that pretraining saw, before a still background with noise. The path
    is within 60 degrees of horizontal; "rightward" visits its places from left to right, "leftward" from right to left,
    and there-and-back visits every other place on the way out and the rest on the way back. All four classes (chance
    25%) show the very same eight frames in different orders, so neither one frame nor an average over frames can tell.
    400 training, 80 validation and 200 test clips, seed 7.

    (Version 2: with the 200 training clips of version 1, AIM learned them by heart and no order.)
    """

    version = 2
    seed = 7
    num_frames = 8
    sizes = {"train": 400, "validation": 80, "test": 200}
    styles = ("noto", "fluent")
    kinds = ("smileys-emotion/face-*", "animals-nature/animal-*", "food-drink/food-*", "travel-places/transport-*")
    fill = 0.3
    orders = {
        "rightward": (0, 1, 2, 3, 4, 5, 6, 7),
        "leftward": (7, 6, 5, 4, 3, 2, 1, 0),
        "right and back": (0, 2, 4, 6, 7, 5, 3, 1),
        "left and back": (7, 5, 3, 1, 0, 2, 4, 6),
    }
    size = (10.0, 16.0)  # pixels
    length = (18.0, 26.0)  # of the path, pixels
    slope = math.radians(60)
    noise = 0.02  # standard deviation, of values in [0, 1]

    def paths(self, n: int, generator: torch.Generator) -> Tensor:
        """The places (n, 8, 2) of sprites from left to right, the path's middle such that they stay inside."""
        length = uniform((n, 1), *self.length, generator)
        slope = uniform((n, 1), -self.slope, self.slope, generator)
        reach = torch.cat((torch.cos(slope), torch.sin(slope)), dim=1) * length / 2
        room = (IMAGE_SIZE / 2 - reach.abs() - self.size[1] / 2).clamp(min=0)
        middle = IMAGE_SIZE / 2 + uniform((n, 2), -1, 1, generator) * room
        return middle[:, None] + torch.linspace(-1, 1, self.num_frames)[None, :, None] * reach[:, None]

    def frames(self, n: int, generator: torch.Generator) -> Tensor:
        """Clips uint8 (n, 8, 3, 40, 40) whose frames are in the order of the places, from left to right."""
        t = self.num_frames
        emoji = pick(emoji_of(self.kinds, self.styles, self.fill), (n, 1), generator)
        sprites = drawings(pick_styles(emoji, self.styles, generator), emoji)
        size = uniform((n, 1), *self.size, generator).repeat_interleave(t, 0)
        background = self.backgrounds(n, generator).repeat_interleave(t, 0)
        places = self.paths(n, generator).view(n * t, 1, 2)
        images = compose(sprites.repeat_interleave(t, 0), places, size, torch.zeros_like(size), background)
        images += self.noise * torch.randn(images.shape, generator=generator)  # goes with the place, not with the time
        return to_uint8(images).view(n, t, 3, IMAGE_SIZE, IMAGE_SIZE)

    def make(self, split: str) -> Split:
        generator, n = self.generator(split), self.sizes[split]
        labels = balanced_labels(n, len(self.orders), generator)
        orders = torch.tensor(list(self.orders.values()))[labels]
        clips = self.frames(n, generator)[torch.arange(n)[:, None], orders]
        return Split(clips, labels, tuple(self.orders))

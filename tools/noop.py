"""A plug-in whose runs take next to no time: what is left of one is what launching and recording it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from peftmark import BACKBONES, METHODS, TASKS, Anatomy, Method, Task
from peftmark.backbones import RANDOM, Backbone, Pixels
from peftmark.tasks import Split, TaskData


class NoopAnatomy(Anatomy):
    """A linear layer over pixels."""

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.flatten(1))


@BACKBONES.register("noop/pixels", family="noop")
class NoopPixels(Backbone):
    """Eight linear features of 8x8 images; always random."""

    def weights_file(self) -> Path:
        raise FileNotFoundError

    def weights_id(self, pretrained: bool) -> str:
        return RANDOM

    def build(self, pretrained: bool) -> Anatomy:
        model = nn.Linear(192, 8)
        half = (0.5, 0.5, 0.5)
        return NoopAnatomy(self.name, model, model, feature_dim=8, input=Pixels((8, 8), half, half), log=[])


@TASKS.register("noop/noise", track="image", group="noop")
class NoopNoise(Task):
    """Dark or bright noise."""

    def split_sha256(self) -> str:
        return "0" * 64

    def load(self) -> TaskData:
        generator = torch.Generator().manual_seed(0)
        train, validation, test = (self._split(n, generator) for n in (16, 8, 64))
        return TaskData(train, validation, {"test": test})

    def _split(self, n: int, generator: torch.Generator) -> Split:
        labels = torch.arange(n) % 2
        pixels = torch.randint(0, 128, (n, 3, 8, 8), generator=generator) + 40 * labels.view(-1, 1, 1, 1)
        return Split(pixels.to(torch.uint8), labels, ("dark", "bright"))


@METHODS.register("noop", family="noop", tracks=("image",))
@dataclass
class Noop(Method):
    """Trains everything, if for any epochs at all, after `seconds` of doing nothing."""

    seconds: float = 0.0

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.train(lambda name, parameter: True)

    def prepare(self, model: nn.Module, batches: object) -> None:
        time.sleep(self.seconds)

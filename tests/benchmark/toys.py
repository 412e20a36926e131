"""A user's file: a backbone, tasks and methods that live outside the repository (``--import toys.py``)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from peftmark import BACKBONES, METHODS, TASKS, Anatomy, Method, Task
from peftmark.backbones import RANDOM, Backbone
from peftmark.backbones import Pixels as PixelInput
from peftmark.errors import Unsupported
from peftmark.methods import AdaptedModel, Phase, Variant
from peftmark.tasks import Split, TaskData


class PixelsAnatomy(Anatomy):
    """A linear layer over pixels."""

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.flatten(1))


@BACKBONES.register("toy/pixels", family="toy")
class Pixels(Backbone):
    """Eight linear features of 8x8 images; always random."""

    def weights_file(self) -> Path:
        raise FileNotFoundError

    def weights_id(self, pretrained: bool) -> str:
        return RANDOM

    def build(self, pretrained: bool) -> Anatomy:
        model = nn.Linear(192, 8)
        half = (0.5, 0.5, 0.5)
        return PixelsAnatomy(self.name, model, model, feature_dim=8, input=PixelInput((8, 8), half, half), log=[])


def split(n: int, seed: int, difference: int = 100) -> Split:
    """Noise, brighter in one class than in the other."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 128, (n, 3, 8, 8), generator=generator) + difference * labels.view(-1, 1, 1, 1)
    return Split(images.to(torch.uint8), labels, ("dark", "bright"))


@TASKS.register("toy/bright", track="image", group="toys")
class Bright(Task):
    """Is an image dark or bright?"""

    test_seed = 2

    def split_sha256(self) -> str:
        return "0" * 64

    def load(self) -> TaskData:
        return TaskData(split(16, 0), split(10, self.test_seed + 1), {"test": split(12, self.test_seed)})


@TASKS.register("toy/bright_too", track="image", group="toys")
class BrightToo(Bright):
    """The same training images, others for validation and test."""

    test_seed = 20


@TASKS.register("toy/dim", track="image", group="toys")
class Dim(Bright):
    """Hardly brighter: how well it is learned depends on how."""

    def load(self) -> TaskData:
        return TaskData(split(64, 0, 8), split(100, 3, 8), {"test": split(100, 2, 8)})


@TASKS.register("toy/gone", track="image", group="toys")
class Gone(Bright):
    """Data that are not there."""

    def load(self) -> TaskData:
        raise FileNotFoundError("no images in /nowhere")


@TASKS.register("toy/last", track="image", group="toys")
class Last(Bright):
    """Its process is killed as soon as a run has written its record."""

    def manifest(self) -> dict[str, object]:
        os.kill(os.getpid(), 9)
        return {}


@TASKS.register("toy/clips", track="video", group="toys")
class Clips(Bright):
    """Two frames."""

    num_frames = 2

    def load(self) -> TaskData:
        data = super().load()
        data = [data.train, data.validation, data.tests["test"]]
        clips = [Split(s.inputs[:, None].repeat(1, 2, 1, 1, 1), s.targets, s.class_names) for s in data]
        return TaskData(clips[0], clips[1], {"test": clips[2]})


@METHODS.register("toy_full", family="toys", tracks=("image", "video"))
@dataclass
class ToyFull(Method):
    """Trains everything, may take its time, and writes into the file `log` when it starts and ends."""

    log: str = ""
    tag: str = ""
    seconds: float = 0.0

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.train(lambda name, parameter: True)

    def prepare(self, model: nn.Module, batches: object) -> None:
        self._say("start")
        time.sleep(self.seconds)
        self._say("end")

    def _say(self, event: str) -> None:
        if self.log:
            with open(self.log, "a") as stream:
                stream.write(f"{self.tag} {event} {os.getpid()}\n")


@METHODS.register("toy_phases", family="toys", tracks=("image",))
@dataclass
class ToyPhases(Method):
    """Trains all in one phase, measures twice in the next, trains the head alone in the last; two variants."""

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.train(lambda name, parameter: True)

    def phases(self) -> list[Phase]:
        return [Phase("first", epochs=2.0, learning_rate=0.5), Phase("look", epochs=0), Phase("last")]

    def begin_phase(self, name: str, model: AdaptedModel, accuracy: Callable[[], float]) -> None:
        if name == "look":
            self.best = max(accuracy(), accuracy())
        if name == "last":
            model.backbone.requires_grad_(False)

    def found(self) -> dict[str, object]:
        return {"best": self.best}

    def variants(self) -> list[Variant]:
        return [Variant("head", 0), Variant("head", 1)]

    def select(self, model: AdaptedModel, variant: Variant) -> None:
        if variant.value == 0:
            self.weight = model.head.weight.detach().clone()
        with torch.no_grad():
            model.head.weight.copy_(self.weight * variant.value)


@METHODS.register("toy_looks_last", family="toys", tracks=("image",))
@dataclass
class ToyLooksLast(ToyFull):
    """Measures when its training is over."""

    def phases(self) -> list[Phase]:
        return [Phase("train"), Phase("look", epochs=0)]

    def begin_phase(self, name: str, model: AdaptedModel, accuracy: Callable[[], float]) -> None:
        if name == "look":
            accuracy()


LEAVING = {kind.__name__: kind for kind in (SystemExit, GeneratorExit, KeyboardInterrupt)}


@METHODS.register("toy_fault", family="toys", tracks=("image",))
@dataclass
class ToyFault(ToyFull):
    """Goes wrong in one way."""

    fault: str = "raise"

    def adapt(self, anatomy: Anatomy) -> None:
        super().adapt(anatomy)
        if self.fault == "unsupported":
            raise Unsupported("toys do not work here")
        if self.fault == "raise":
            raise RuntimeError("a toy broke")
        if self.fault in LEAVING:
            raise LEAVING[self.fault]("a toy left")
        if self.fault == "memory":
            torch.empty(10**15)

    def loss(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: object) -> torch.Tensor:
        loss = super().loss(model, images, labels, context)
        if self.fault == "kill":
            os.kill(os.getpid(), 9)
        if self.fault == "sleep":
            time.sleep(600)
        if self.fault == "python memory":
            raise MemoryError
        return loss * float("nan") if self.fault == "diverge" else loss

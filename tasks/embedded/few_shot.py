"""Open vocabulary: the curve from one to sixteen images a class."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backbones.embedded.atlas import HELD_OUT_STYLE
from ...backbones.embedded.scenes import jitter
from ...registry import TASKS
from ..task import Split
from .generated import to_uint8
from .naming import Naming, names_of, seen_emoji
from .sprites import single_scenes


class FewShot(Naming):
    """Name thirty emoji after some images of each.

    The images of fewer shots are among those of more. Validation has as many images a class as training, but at most
    four (CoOp's rule). The test is the same for all.
    """

    seed = 10
    styles = (HELD_OUT_STYLE,)
    classes = 30
    most = 16  # images a class that are drawn for every split, of which the first are taken

    def emoji(self, split: str) -> Tensor:
        pool = seen_emoji()
        return pool[torch.randperm(len(pool), generator=self.generator("classes"))[: self.classes]]

    def make(self, split: str) -> Split:
        generator, classes = self.generator(split), self.emoji(split)
        labels = torch.arange(self.classes).repeat(self.most)  # round by round
        scenes = single_scenes(classes[labels], labels, self.styles, self.size, self.turn, generator)
        images = to_uint8(jitter(scenes.paint(self.backgrounds(len(labels), generator)), generator))
        kept = self.sizes[split]
        return Split(images[:kept].clone(), labels[:kept].clone(), names_of(classes))


@TASKS.register("embedded/naming-1shot", track="openvocab", group="few-shot")
class FewShot1(FewShot):
    """Name thirty emoji after one image of each (chance 3.3%).

    One emoji in the twemoji style, which pretraining never saw, on a varied background of 40 pixels. 30 training, 30
    validation and 300 test images, seed 10.
    """

    sizes = {"train": 30, "validation": 30, "test": 300}


@TASKS.register("embedded/naming-2shot", track="openvocab", group="few-shot")
class FewShot2(FewShot):
    """Name thirty emoji after two images of each (chance 3.3%), those of `embedded/naming-1shot` among them.

    60 training, 60 validation and the same 300 test images, seed 10.
    """

    sizes = {"train": 60, "validation": 60, "test": 300}


@TASKS.register("embedded/naming-4shot", track="openvocab", group="few-shot")
class FewShot4(FewShot):
    """Name thirty emoji after four images of each (chance 3.3%), those of `embedded/naming-1shot` among them.

    120 training, 120 validation and the same 300 test images, seed 10.
    """

    sizes = {"train": 120, "validation": 120, "test": 300}


@TASKS.register("embedded/naming-8shot", track="openvocab", group="few-shot")
class FewShot8(FewShot):
    """Name thirty emoji after eight images of each (chance 3.3%), those of `embedded/naming-1shot` among them.

    240 training, 120 validation and the same 300 test images, seed 10.
    """

    sizes = {"train": 240, "validation": 120, "test": 300}


@TASKS.register("embedded/naming-16shot", track="openvocab", group="few-shot")
class FewShot16(FewShot):
    """Name thirty emoji after sixteen images of each (chance 3.3%), those of `embedded/naming-1shot` among them.

    480 training, 120 validation and the same 300 test images, seed 10.
    """

    sizes = {"train": 480, "validation": 120, "test": 300}

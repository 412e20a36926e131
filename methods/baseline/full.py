"""Full fine-tuning, with and without pretraining: the two references every method is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method


@METHODS.register("full", family="baseline", tracks=("image", "openvocab", "video"))
@dataclass
class Full(Method):
    """Train every parameter of the image backbone.

    85,798,656 parameters on ViT-B/16. On an open-vocabulary task the image tower trains against frozen text features.
    """

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.train(lambda name, parameter: True)


@METHODS.register("scratch", family="baseline", tracks=("image", "video"))
@dataclass
class Scratch(Full):
    """Train every parameter from random weights: the control that shows what pretraining gives."""

    pretrained: ClassVar[bool] = False

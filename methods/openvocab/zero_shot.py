"""Zero-shot classification."""

from __future__ import annotations

from dataclasses import dataclass

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method


@METHODS.register("zero_shot", family="openvocab", tracks=("openvocab",))
@dataclass
class ZeroShot(Method):
    """The vision-language model as it is, with the task's prompt templates (Radford et al. 2021, arXiv:2103.00020).

    A class's text feature is the mean of its normalised features over the templates, normalised. Nothing is trained.
    """

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.text_tower()

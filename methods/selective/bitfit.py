"""BitFit."""

from __future__ import annotations

from dataclasses import dataclass

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method


@METHODS.register("bitfit", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class BitFit(Method):
    """Train the biases only (Ben Zaken et al. 2022, arXiv:2106.10199).

    Every parameter whose name ends in ``bias``: linear layers', LayerNorms' and the patch embedding's
    (102,912 parameters on ViT-B/16). A packed attention's ``in_proj_bias`` is seen as three projections' biases.
    """

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.train(lambda name, parameter: name.endswith("bias"))

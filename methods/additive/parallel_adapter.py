"""The scaled parallel adapter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.bottleneck import Bottleneck
from ..ranges import Count, Rate
from ..search_space import Dimension, LogUniform


@METHODS.register("parallel_adapter", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class ParallelAdapter(Method):
    """A scaled bottleneck parallel to each MLP (He et al. 2022, arXiv:2110.04366, table 1).

    ``x + MLP(norm(x)) + scale * up(ReLU(down(x)))`` with x (N, L, D) taken before the norm, `down` Kaiming-uniform
    (a = sqrt(5)), `up` zero. L(2Dh + h + D) parameters: with h = D / 2, AdapterHub's reduction of 2
    (`bottleneck=None`), 7,091,712 on ViT-B/16.

    The official code (petl_factory.py) reads the stream before or after a pre-norm, by its option hi_lnbefore;
    AdapterHub (ParBnConfig, modeling.py) always before it, as here. AdaptFormer is this with scale 0.1 and dropout.
    """

    bottleneck: Count | None = None
    scale: float = 4.0
    dropout: Rate = 0.0

    def search_space(self) -> Mapping[str, Dimension]:
        return {"scale": LogUniform(0.5, 16.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            bottleneck = self.bottleneck or block.width // 2
            adapter = Bottleneck(block.width, bottleneck, "relu", self.dropout, scale=self.scale)
            nn.init.kaiming_uniform_(adapter.down.weight, a=math.sqrt(5))
            block.mlp.add_parallel(adapter)

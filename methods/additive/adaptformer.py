"""AdaptFormer."""

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


@METHODS.register("adaptformer", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class AdaptFormer(Method):
    """A scaled bottleneck parallel to each MLP (Chen et al. 2022, arXiv:2205.13535, equations 2-3).

    ``x + MLP(norm(x)) + scale * up(ReLU(down(x)))`` with x (N, L, D) taken before the norm, no LayerNorm of its own,
    `down` Kaiming-uniform (a = sqrt(5)), `up` zero. 2Dh + h + D parameters a block: 1,189,632 on ViT-B/16 with the
    paper's h = 64, 156,768 with h = 8.

    The official head is BatchNorm1d(affine=False) + Linear (main_image.py); here the head is the protocol's.
    """

    bottleneck: Count = 64
    scale: float = 0.1
    dropout: Rate = 0.1

    def search_space(self) -> Mapping[str, Dimension]:
        return {"scale": LogUniform(0.05, 5.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            adapter = Bottleneck(block.width, self.bottleneck, "relu", self.dropout, scale=self.scale)
            nn.init.kaiming_uniform_(adapter.down.weight, a=math.sqrt(5))
            block.mlp.add_parallel(adapter)

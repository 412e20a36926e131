"""The Houlsby adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.bottleneck import Activation, Bottleneck
from ..ranges import Count, Rate
from ..selective.layernorm import LayerNormTuning


@METHODS.register("houlsby_adapter", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class HoulsbyAdapter(Method):
    """Two serial bottlenecks a block, and every LayerNorm (Houlsby et al. 2019, arXiv:1902.00751, section 2.1).

    ``y + W2 gelu(W1 y)`` on what attention and the MLP put out (N, L, D), before each residual add. 2(2Dh + h + D)
    parameters a block, and the norms': on ViT-B/16 2,417,664 with h = 64, 351,936 with h = 8; 313,536 of these without
    the norms (`train_norms=False`).

    W1 and W2 are drawn from N(0, 1e-3) truncated at two deviations, biases are zero, GELU is its tanh approximation
    (adapter-bert modeling.py), so the start is only nearly the identity. The official code collects adapters, every
    LayerNorm and the head for training. AdapterHub's variant has Swish, N(0, 0.02) and a bottleneck of D / 16.
    """

    identity_at_start: ClassVar[bool] = False

    bottleneck: Count = 64
    activation: Activation = "gelu_tanh"
    dropout: Rate = 0.0
    train_norms: bool = True

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            for branch in block.branches:
                adapter = Bottleneck(block.width, self.bottleneck, self.activation, self.dropout, skip=True)
                for linear in (adapter.down, adapter.up):
                    nn.init.trunc_normal_(linear.weight, std=1e-3, a=-2e-3, b=2e-3)
                branch.add_serial(adapter)
        if self.train_norms:
            LayerNormTuning().adapt(anatomy)

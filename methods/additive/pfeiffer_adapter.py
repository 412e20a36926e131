"""The Pfeiffer adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.bottleneck import Activation, Bottleneck
from ..ranges import Count, Rate


@METHODS.register("pfeiffer_adapter", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class PfeifferAdapter(Method):
    """One serial bottleneck a block, after the MLP (Pfeiffer et al. 2021, arXiv:2005.00247).

    ``x + W2 act(W1 x)`` on the MLP's output (N, L, D) before the residual add, as in NOAH, whose defaults these are
    (QuickGELU, dropout 0.1, model/module/adapter_super.py). ``reads="output+residual"`` places it after the add, as
    AdapterHub and UniPELT do. 2Dh + h + D parameters a block: 156,768 on ViT-B/16 with h = 8.

    NOAH draws both matrices by Xavier; then timm's `init_weights` resets them to N(0, 0.02) and the biases to zero
    (model/supernet_vision_transformer_timm.py). Its start is not the identity; here W1 is Xavier's and W2 zero.
    """

    bottleneck: Count = 8
    activation: Activation = "quick_gelu"
    dropout: Rate = 0.1
    reads: Literal["output", "output+residual"] = "output"

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            adapter = Bottleneck(block.width, self.bottleneck, self.activation, self.dropout, skip=True)
            nn.init.xavier_uniform_(adapter.down.weight)
            if self.reads == "output":
                block.mlp.add_serial(adapter)
            else:
                block.mlp.add_after_add(adapter)

"""What NOAH and the OSU study call LoRA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, WeightDelta
from ...registry import METHODS
from ..method import Method
from ..parts.peft_adapter import PeftAdapter, inserts_by_layer, low_rank_adapter
from ..ranges import Count, Rate


class SharedDownDelta(WeightDelta):
    """``x -> B A dropout(x)``: B (out, rank) zero, its own; A (rank, in) shared by q, k and v of a block."""

    down: nn.Linear

    def __init__(self, down: nn.Linear, owner: bool, out_features: int, dropout: float) -> None:
        super().__init__()
        self.share("down", down, owner)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Parameter(torch.zeros(out_features, down.out_features))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(self.down(self.dropout(x)), self.up)

    def weight_delta(self, weight: Tensor) -> Tensor:
        return self.up @ self.down.weight


@METHODS.register("lora_fused", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class LoRAFused(Method):
    """One low-rank update of the fused qkv layer (Zhang et al. 2022, NOAH, arXiv:2206.04673, its "LoRA" module).

    ``W_qkv x`` becomes ``W_qkv x + B A x`` with one A (rank, D) for q, k and v and B (3D, rank), no scale; the paper of
    LoRA has an A for each projection and leaves k alone (`lora`). Where q, k and v are apart, they share A. Merges into
    the weights. 4·L·D·rank parameters: 294,912 on ViT-B/16, as many as `lora` has on two projections.

    A is Kaiming-uniform (a = sqrt(5)), B zero, as NOAH's module sets them (Attention in
    model/supernet_vision_transformer_timm.py, the one model that its training builds). There timm's `init_weights`
    runs afterwards and resets both to N(0, 0.02), so that its start is not the bare backbone. Dropout on A's input is
    NOAH's (``--drop_rate_LoRA``, 0.1), as the OSU study's (arXiv:2409.16434); where q, k and v are apart, each draws
    its own mask.
    """

    rank: Count = 8
    dropout: Rate = 0.1

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            inputs = block.attention.inputs
            down = nn.Linear(inputs[0].in_features, self.rank, bias=False)  # its own start is Kaiming's
            for index, linear in enumerate(inputs):
                linear.add_delta(SharedDownDelta(down, index == 0, linear.out_features, self.dropout))

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        """Where q, k and v are apart, PEFT has an A for each, all equal."""
        layers = inserts_by_layer(anatomy, SharedDownDelta)
        changes = {name: [(host, own.down.weight, own.up) for host, own in layer] for name, layer in layers.items()}
        return low_rank_adapter(changes, scale=1.0, dropout=self.dropout)

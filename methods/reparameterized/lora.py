"""LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.low_rank import LowRank, Projection
from ..parts.peft_adapter import PeftAdapter, inserts_by_layer, low_rank_adapter
from ..ranges import NOT_EMPTY, Count, Rate
from ..search_space import Dimension, LogUniform


@METHODS.register("lora", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class LoRA(Method):
    """Low-rank updates of attention's projections (Hu et al. 2022, arXiv:2106.09685, section 4.1).

    ``W x`` becomes ``W x + (alpha / rank) B A x``, apart for each of `targets` even where q, k and v are one fused
    layer. Merges into the weights. 294,912 parameters on ViT-B/16: 12 blocks x 2 targets x 2 x 768 x 8.

    In a block that has none of the targets, for it has no attention (ConvNeXt), fc1 and fc2 stand in: the choice of HF
    PEFT's guide for a timm model without attention (docs, "Custom models"), here by `Block.linears` for every method
    with `targets`.

    The paper adapts q and v; rank 8 and alpha 8 are the usual choice for ViTs. What NOAH's and the OSU study's code
    call LoRA (one A shared by q, k and v) is another method.
    """

    rank: Count = 8
    alpha: float = 8.0
    dropout: Rate = 0.0
    targets: Annotated[tuple[Projection, ...], NOT_EMPTY] = ("q", "v")

    def search_space(self) -> Mapping[str, Dimension]:
        return {"alpha": LogUniform(1.0, 64.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            for linear in block.linears(self.targets):
                linear.add_delta(
                    LowRank(linear.in_features, linear.out_features, self.rank, self.alpha / self.rank, self.dropout)
                )

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        layers = inserts_by_layer(anatomy, LowRank)
        changes = {name: [(host, own.down, own.up) for host, own in layer] for name, layer in layers.items()}
        return low_rank_adapter(changes, self.alpha / self.rank, self.dropout)

"""FacT-TT: factor-tuning by a tensor train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ...backbones import Affine, Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.chunked_core import ChunkedCore, OuterFactors
from ..ranges import Count, Rate
from ..search_space import Dimension, LogUniform


class TrainCore(ChunkedCore):
    """A `ChunkedCore` whose core is a free matrix, with a linear layer's own start."""

    def __init__(
        self, factors: OuterFactors, owner: bool, linear: Affine, width: int, scale: float, dropout: float
    ) -> None:
        super().__init__(factors, owner, linear, width, scale, dropout)
        rank = factors.down.out_features
        self.middle = nn.Linear(self.chunks_in * rank, self.chunks_out * rank, bias=False)

    def core(self) -> Tensor:
        return self.middle.weight.T


@METHODS.register("fact_tt", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class FacTTT(Method):
    """All weight changes as one tensor, factorised by a tensor train (Jie and Deng 2023, arXiv:2212.03145, FacT-TT).

    Each D x D piece of q, k, v, the output projection, fc1 (four pieces) and fc2 (four) changes by
    ``scale * V^T S U``: U (D -> rank) and V (rank -> D) shared by all pieces of all blocks, S (rank, rank) of its own.
    V starts at zero, U and S as linear layers do. Merges into the weights. 2·D·r + 12·L·r² parameters, on ViT-B/16
    1536r + 144r²: 61,440 with the paper's largest rank, 16, 8,448 with 4.

    Dropout is on S's output. The paper chooses the rank (up to 16) and `scale` (0.01 to 100) per dataset.
    """

    rank: Count = 16
    scale: float = 1.0
    dropout: Rate = 0.1

    def search_space(self) -> Mapping[str, Dimension]:
        return {"scale": LogUniform(0.1, 10.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        places = [
            linear
            for block in anatomy.blocks
            for branch in block.branches
            for linear in (*branch.inputs, branch.output)
        ]
        factors = OuterFactors(anatomy.width, self.rank)
        for index, linear in enumerate(places):
            linear.add_delta(TrainCore(factors, index == 0, linear, anatomy.width, self.scale, self.dropout))

"""FacT-TK: factor-tuning by a Tucker decomposition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...backbones import Affine, Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.chunked_core import ChunkedCore, OuterFactors
from ..ranges import Count, Rate
from ..search_space import Dimension, LogUniform


class TuckerFactors(OuterFactors):
    """U and V, and P (rank, slices) and C (rank, rank, rank), both Xavier-uniform, that make every core."""

    def __init__(self, width: int, rank: int, slices: int) -> None:
        super().__init__(width, rank)
        self.mixing = nn.Parameter(torch.empty(rank, slices))
        self.tensor = nn.Parameter(torch.empty(rank, rank, rank))
        nn.init.xavier_uniform_(self.tensor)
        nn.init.xavier_uniform_(self.mixing)


class TuckerCore(ChunkedCore):
    """A `ChunkedCore` whose core is slices `first`, `first` + 1, … of C x_3 P, one for each D x D piece.

    Args:
        interleaved: whether the slices are stored interleaved (column j·pieces + l of row i is entry (i, j) of slice l)
            and consumed chunk by chunk nevertheless, as the official code does in the MLP.
    """

    factors: TuckerFactors

    def __init__(
        self,
        factors: TuckerFactors,
        owner: bool,
        linear: Affine,
        width: int,
        scale: float,
        dropout: float,
        first: int,
        interleaved: bool,
    ) -> None:
        super().__init__(factors, owner, linear, width, scale, dropout)
        self.first = first
        self.interleaved = interleaved

    @property
    def pieces(self) -> int:
        return self.chunks_in * self.chunks_out

    def core(self) -> Tensor:
        slices = self.factors.tensor @ self.factors.mixing[:, self.first : self.first + self.pieces]
        if not self.interleaved:
            slices = slices.transpose(1, 2)  # (rank, pieces, rank): whole slices side by side
        wide = slices.flatten(1)
        return wide if self.chunks_in == 1 else wide.T


@METHODS.register("fact_tk", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class FacTTK(Method):
    """All weight changes as one tensor, factorised by Tucker (Jie and Deng 2023, arXiv:2212.03145, FacT-TK).

    Each D x D piece of q, k, v, the output projection, fc1 (four pieces) and fc2 (four) changes by
    ``scale * V^T S U`` with U (D -> rank), V (rank -> D), and S = C x_3 P[:, piece] from C (rank, rank, rank) and
    P (rank, 12·L), everything shared; piece 12i + j belongs to block i. V starts at zero, U as a linear layer does, P
    and C by Xavier. Merges into the weights. 2·D·r + 12·L·r + r³ parameters, on ViT-B/16 1680r + r³: 86,528 with the
    paper's largest rank, 32, 13,952 with 8.

    Dropout is on S's output. The paper chooses the rank (up to 32) and `scale` (0.01 to 100) per dataset. The official
    code stores fc1's and fc2's slices interleaved and consumes them chunk by chunk (FacT/fact_tk.py:91), so its pieces
    are not slices but mixtures of four; that is kept, for the published numbers are this function's.
    """

    rank: Count = 32
    scale: float = 1.0
    dropout: Rate = 0.1

    def search_space(self) -> Mapping[str, Dimension]:
        return {"scale": LogUniform(0.1, 10.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        places = [
            (linear, branch.name == "mlp")
            for block in anatomy.blocks
            for branch in block.branches
            for linear in (*branch.inputs, branch.output)
        ]
        area = anatomy.width**2
        slices = sum(linear.in_features * linear.out_features // area for linear, _ in places)
        factors = TuckerFactors(anatomy.width, self.rank, slices)
        first = 0
        for linear, in_mlp in places:
            core = TuckerCore(
                factors, first == 0, linear, anatomy.width, self.scale, self.dropout, first, interleaved=in_mlp
            )
            linear.add_delta(core)
            first += core.pieces

"""The weight delta of both FacT methods: shared outer factors around a small core of its own."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ...backbones import Affine, WeightDelta
from ...errors import Unsupported


class OuterFactors(nn.Module):
    """U (rank, D), with a linear layer's own start, and V (D, rank), zero: shared by every layer of the backbone."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)


Factors = TypeVar("Factors", bound=OuterFactors)


class ChunkedCore(WeightDelta):
    """``x -> scale * V core(U x)``, chunk by chunk where input or output are several D wide (fused qkv, fc1, fc2).

    (…, a·D) -U-> (…, a·rank) -core-> (…, b·rank) -V-> (…, b·D).

    Args:
        linear: the map that it changes; its widths must be multiples of `width`.
        width: D, of the outer factors.
    """

    factors: OuterFactors

    def __init__(
        self, factors: OuterFactors, owner: bool, linear: Affine, width: int, scale: float, dropout: float
    ) -> None:
        super().__init__()
        self.share("factors", factors, owner)
        self.chunks_in, rest_in = divmod(linear.in_features, width)
        self.chunks_out, rest_out = divmod(linear.out_features, width)
        if rest_in or rest_out:
            raise Unsupported(
                f"a {linear.in_features} x {linear.out_features} layer is not made of {width}-wide chunks"
            )
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def core(self) -> Tensor:
        """The core, (a·rank, b·rank): input chunks by output chunks."""
        raise NotImplementedError

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        hidden = self.factors.down(x.unflatten(-1, (self.chunks_in, -1))).flatten(-2)
        hidden = self.dropout(hidden @ (self.scale * self.core()))  # where it is smallest
        return self.factors.up(hidden.unflatten(-1, (self.chunks_out, -1))).flatten(-2)

    def weight_delta(self, weight: Tensor) -> Tensor:
        down = torch.block_diag(*[self.factors.down.weight] * self.chunks_in)
        up = torch.block_diag(*[self.factors.up.weight] * self.chunks_out)
        return self.scale * up @ self.core().T @ down

"""The low-rank change of a linear map that LoRA and its kin are made of."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import WeightDelta

Projection = Literal["q", "k", "v", "proj", "fc1", "fc2"]


class LowRank(WeightDelta):
    """``x -> scale * B A dropout(x)``: A (rank, in) Kaiming-uniform with a=sqrt(5), B (out, rank) zero."""

    def __init__(self, in_features: int, out_features: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(F.linear(self.dropout(x), self.down), self.up * self.scale)

    def weight_delta(self, weight: Tensor) -> Tensor:
        return self.scale * self.up @ self.down

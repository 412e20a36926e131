"""Simple things to put into a backbone."""

from __future__ import annotations

import torch
from torch import Tensor

from peftmark.backbones import Anatomy, Insert, WeightDelta, find_backbone


class Add(Insert):
    """Adds a constant."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class Twice(Insert):
    """Doubles."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Double(WeightDelta):
    """Doubles the linear map it is put on."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.T

    def weight_delta(self, weight: Tensor) -> Tensor:
        return weight.clone()


def build(name: str, seed: int = 0) -> Anatomy:
    torch.manual_seed(seed)
    return find_backbone(name).build(pretrained=False)

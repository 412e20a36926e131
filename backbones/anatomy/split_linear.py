"""A fused q, k, v projection as three layers, for methods that can only change whole ones."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class SplitLinear(nn.Module):
    """A fused linear map as three linear layers ``q``, ``k``, ``v``, a third of its output rows each."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        weights = fused.weight.chunk(3)
        biases = (None,) * 3 if fused.bias is None else fused.bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            self.add_module(name, _linear(weight, bias))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, 3 · out): what the fused layer gives."""
        return torch.cat([part(x) for part in self.children()], dim=-1)

    def fused(self) -> nn.Linear:
        """The one layer again, with the weights as they are now."""
        parts = [cast(nn.Linear, part) for part in self.children()]
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        return _linear(torch.cat([part.weight for part in parts]), bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen linear layer over copies of these; it draws no random numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer

"""RepAdapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, Insert
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..ranges import NOT_EMPTY, Count, Rate
from ..search_space import Dimension, LogUniform


class LinearAdapter(Insert):
    """``x + scale * B(dropout(A x))``, A (h, D) dense, B (D, h) in `groups` diagonal blocks, both with bias; (…, D).

    A is Xavier-uniform, B and the biases start at zero. Without activation it folds into the linear maps that read it.
    """

    def __init__(self, width: int, bottleneck: int, groups: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Parameter(torch.zeros(width, bottleneck // groups))
        self.up_bias = nn.Parameter(torch.zeros(width))
        self.groups = groups
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def dense_up(self) -> Tensor:
        """B as one (D, h) matrix: group i writes the i-th part of D from the i-th part of h."""
        return torch.block_diag(*self.up.chunk(self.groups))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.linear(self.dropout(self.down(x)), self.dense_up(), self.up_bias) * self.scale

    def check_foldable(self, host: Any) -> None:
        host.check_input_shift()

    def fold_into(self, host: Any) -> None:
        up = self.scale * self.dense_up()
        shift = up @ self.down.bias + self.scale * self.up_bias
        for linear in host.inputs:
            linear.shift_output_(linear.weight @ shift)
            linear.weight.add_(linear.weight @ up @ self.down.weight)


@METHODS.register("repadapter", family="reparameterized", tracks=("image", "openvocab", "video"))
@dataclass
class RepAdapter(Method):
    """A linear adapter before attention and before the MLP, folded away afterwards (Luo et al. 2023, arXiv:2302.08106).

    ``x + scale * B(dropout(A x))`` on each norm's output x (N, L, D), A: D -> h, B: h -> D with `groups` groups, no
    activation. A Xavier, B zero. Merges into qkv and fc1. Dh + h + Dh/g + D parameters an adapter: 239,808 on ViT-B/16
    with h = 8 and g = 2 (the paper counts the 221,184 weights).

    `scale` multiplies B's bias too and is chosen per dataset, as in the official code (repadapter.py). That code's
    merge fails for g = 1 in the MLP (it reads a weight that is not there). In a Swin whose windows are padded nothing
    can be folded: the padding, zeros in front of qkv, would be shifted too.
    """

    bottleneck: Count = 8
    groups: Count = 2
    scale: float = 1.0
    dropout: Rate = 0.1
    targets: Annotated[tuple[Literal["attention", "mlp"], ...], NOT_EMPTY] = ("attention", "mlp")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bottleneck % self.groups:
            raise ValueError(f"bottleneck={self.bottleneck} must be a multiple of groups={self.groups}")

    def search_space(self) -> Mapping[str, Dimension]:
        return {"scale": LogUniform(0.1, 10.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            if block.width % self.groups:
                raise Unsupported(f"{anatomy.name}: a width of {block.width} does not divide into {self.groups} groups")
            for branch in block.named_branches(self.targets):
                adapter = LinearAdapter(block.width, self.bottleneck, self.groups, self.scale, self.dropout)
                branch.add_after_norm(adapter)

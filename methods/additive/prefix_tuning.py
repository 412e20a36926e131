"""Prefix tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Insert
from ...registry import METHODS
from ..method import Method
from ..ranges import Count


class Prefix(Insert):
    """Learned keys and values, (length, D) each, drawn from N(0, 0.02); for attention's ``prefix`` slot."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(length, width).normal_(std=0.02))
        self.values = nn.Parameter(torch.empty(length, width).normal_(std=0.02))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.keys.unsqueeze(0), self.values.unsqueeze(0)


class PrefixTrunk(nn.Module):
    """What the prefixes of all blocks share: ``tanh(W tokens + b)``, (length, hidden)."""

    def __init__(self, width: int, length: int, hidden: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(length, width).normal_())
        self.down = nn.Linear(width, hidden)

    def forward(self) -> Tensor:
        return self.down(self.tokens).tanh()


class MlpPrefix(Insert):
    """Keys and values (1, length, D) of one block, put out by an MLP whose first layer all blocks share.

    Its last layer is this block's rows of the one wide layer that the official code has.
    """

    trunk: PrefixTrunk

    def __init__(self, trunk: PrefixTrunk, owner: bool) -> None:
        super().__init__()
        self.share("trunk", trunk, owner)
        self.up = nn.Linear(trunk.down.out_features, 2 * trunk.down.in_features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.up(self.trunk()).unsqueeze(0).chunk(2, dim=-1)
        return keys, values


@METHODS.register("prefix_tuning", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class PrefixTuning(Method):
    """Learned keys and values in front of every block's own (Li and Liang 2021, arXiv:2101.00190, section 4).

    ``attention(q, [P_k; k], [P_v; v])`` with P_k, P_v (p, D) a block, split into heads as k and v are. 2·L·p·D
    parameters: 184,320 on ViT-B/16 with p = 10. The prefixes take attention from the first step on, so an untrained
    model is not the bare backbone.

    With `reparameterized` they are ``MLP(tokens)`` with one tanh layer of `hidden` units, tokens and first layer shared
    by all blocks, as the paper trains them: pD + (D·m + m) + 2·L·D(m + 1) parameters, 9,857,024 on ViT-B/16 with
    m = 512, of which only the 2·L·p·D that come out are needed afterwards. Without, He et al.'s PrefixDirectInit
    (petl_factory.py), drawn from N(0, 0.02).
    """

    identity_at_start: ClassVar[bool] = False

    prompt_length: Count = 10
    reparameterized: bool = False
    hidden: Count = 512

    def adapt(self, anatomy: Anatomy) -> None:
        blocks = anatomy.blocks
        trunk = PrefixTrunk(anatomy.width, self.prompt_length, self.hidden) if self.reparameterized else None
        for index, block in enumerate(blocks):
            if trunk is None:
                block.attention.add_prefix(Prefix(block.width, self.prompt_length))
            else:
                block.attention.add_prefix(MlpPrefix(trunk, owner=index == 0))

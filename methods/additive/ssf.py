"""Scaling and shifting deep features (SSF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Insert
from ...registry import METHODS
from ..method import Method


class ScaleShift(Insert):
    """``y -> gamma * y + beta`` by channel: the last axis of tokens, axis 1 of a convolution's (N, C, h, w)."""

    def __init__(self, channels: int, channels_first: bool = False) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.beta = nn.Parameter(torch.empty(channels).normal_(0.0, 0.02))
        self.channels_first = channels_first

    def forward(self, y: Tensor) -> Tensor:
        if self.channels_first:
            return y * self.gamma.view(-1, 1, 1) + self.beta.view(-1, 1, 1)
        return y * self.gamma + self.beta

    def fold_into(self, host: Any) -> None:
        host.scale_output_(self.gamma)
        host.shift_output_(self.beta)


@METHODS.register("ssf", family="additive", tracks=("image", "open_vocabulary", "video"))
@dataclass
class SSF(Method):
    """Scale and shift after every operation (Lian et al. 2022, arXiv:2210.08823, equation 3).

    ``gamma * y + beta`` after the patch projection (before class token and positions), both norms of a block, qkv, the
    attention's output projection, fc1, fc2 and the final norm. Merges into the weights. 205,824 parameters on ViT-B/16.

    gamma starts as N(1, 0.02), beta as N(0, 0.02), as in the official code, so an untrained model is only nearly the
    bare backbone.
    """

    identity_at_start: ClassVar[bool] = False

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.stem.add_after(ScaleShift(anatomy.stem.out_features, channels_first=True))
        for block in anatomy.blocks:
            for branch in (block.attention, block.mlp):
                for part in (branch.norm, *branch.inputs, branch.output):
                    part.add_after(ScaleShift(part.out_features))
        anatomy.norm.add_after(ScaleShift(anatomy.norm.out_features))

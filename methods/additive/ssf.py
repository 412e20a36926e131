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
    """``y -> gamma * y + beta`` by channel (…, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.beta = nn.Parameter(torch.empty(channels).normal_(0.0, 0.02))

    def forward(self, y: Tensor) -> Tensor:
        return y * self.gamma + self.beta

    def check_foldable(self, host: Any) -> None:
        host.check_shift()

    def fold_into(self, host: Any) -> None:
        host.scale_output_(self.gamma)
        host.shift_output_(self.beta)


@METHODS.register("ssf", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class SSF(Method):
    """Scale and shift after every operation (Lian et al. 2022, arXiv:2210.08823, equation 3).

    ``gamma * y + beta`` after the patch projection (before class token and positions), both norms of a block, qkv, the
    attention's output projection, fc1, fc2 and the final norm. Merges into the weights. 205,824 parameters on ViT-B/16.

    Swin has it also after the patch embedding's norm and each patch merging's norm (not its reduction, which has no
    bias): 274,432 on Swin-B. ConvNeXt has it after the stem's and the downsamplings' convolutions and norms, and in a
    block after the depthwise convolution, norm, fc1 and fc2: 260,608 on ConvNeXt-B. The official ConvNeXt has its last
    one on what the last block puts out, before pooling; here as everywhere it is behind the final norm, so that it can
    be folded.

    gamma starts as N(1, 0.02), beta as N(0, 0.02), as in the official code, so an untrained model is only nearly the
    bare backbone.
    """

    identity_at_start: ClassVar[bool] = False

    def adapt(self, anatomy: Anatomy) -> None:
        for operation in anatomy.operations:
            operation.add_after(ScaleShift(operation.out_features))

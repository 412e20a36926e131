"""Convolutional bypasses (Convpass)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, Insert
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..parts.bottleneck import quick_gelu
from ..ranges import NOT_EMPTY, Count, Rate
from ..search_space import Dimension, LogUniform

ConvInit = Literal["identity", "xavier"]


class ConvBypass(Insert):
    """``scale * up(dropout(act(conv(act(down(x))))))`` on tokens (N, L, D), the convolution 3x3 on their grid.

    A token before the patches (class token, register) is convolved alone, as a 1x1 image: only the kernel's centre
    meets it.

    Args:
        width: D. bottleneck: h.
        grid: patch tokens (rows, columns), prefix: tokens before them; None where the stream is a map (N, h, w, D).
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        grid: tuple[int, int] | None,
        prefix: int,
        scale: float,
        dropout: float,
        conv_init: ConvInit,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.scale = scale
        self.down = nn.Linear(width, bottleneck)
        self.conv = nn.Conv2d(bottleneck, bottleneck, 3, padding=1)
        self.up = nn.Linear(bottleneck, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.up.weight)
        if conv_init == "xavier":
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            nn.init.dirac_(self.conv.weight)
        for layer in (self.down, self.conv, self.up):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = quick_gelu(self.down(x))
        if self.grid is None:
            hidden = self.conv(hidden.movedim(-1, 1)).movedim(1, -1)
        else:
            alone = F.linear(hidden[:, : self.prefix], self.conv.weight[:, :, 1, 1], self.conv.bias)
            patches = hidden[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
            patches = self.conv(patches).flatten(2).transpose(1, 2)
            hidden = torch.cat((alone, patches), dim=1)
        return self.up(self.dropout(quick_gelu(hidden))) * self.scale


@METHODS.register("convpass", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class Convpass(Method):
    """A convolutional bottleneck parallel to attention and to the MLP (Jie and Deng 2022, arXiv:2207.07039).

    ``x + f(norm(x)) + scale * up(dropout(g(conv3x3(g(down(norm(x)))))))``, g = QuickGELU, f either branch, x (N, L, D);
    the convolution runs on the patch grid, the class token alone (in Swin and ConvNeXt, on the stage's map). `down`
    Xavier, `up` and biases zero, the convolution starts as the identity (its centre tap) or by Xavier. 2Dh + h + D +
    9h² + h parameters a bypass: 327,552 on ViT-B/16 with h = 8 on both `targets`, 163,776 on attention alone.

    The paper chooses `scale` from {0.01, 0.1, 1, 10, 100} and `conv_init` per dataset. The official code has width 768,
    h = 8 in the identity and the 14x14 grid written into it (convpass/vtab/convpass.py); any grid works here.
    """

    bottleneck: Count = 8
    scale: float = 1.0
    dropout: Rate = 0.1
    conv_init: ConvInit = "identity"
    targets: Annotated[tuple[Literal["attention", "mlp"], ...], NOT_EMPTY] = ("attention", "mlp")

    def search_space(self) -> Mapping[str, Dimension]:
        return {"scale": LogUniform(0.1, 10.0)}

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            if anatomy.grid is None and not block.map_stream:
                raise Unsupported(f"{anatomy.name} has no token grid to convolve")
            for branch in block.named_branches(self.targets):
                bypass = ConvBypass(
                    block.width,
                    self.bottleneck,
                    anatomy.grid,
                    anatomy.prefix_tokens,
                    self.scale,
                    self.dropout,
                    self.conv_init,
                )
                branch.add_parallel_norm(bypass)

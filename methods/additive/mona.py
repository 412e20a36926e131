"""Mona."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, Insert
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..ranges import Count, Rate

KERNELS = (3, 5, 7)
REACH = max(KERNELS) // 2
"""Of the largest kernel, from its centre."""


class MultiCognitive(Insert):
    """``x + up(dropout(gelu(f(down(s1 * norm(x) + s2 * x)))))``, f depthwise filters of three sizes and a 1x1 one.

    ``f(z) = w + Pw`` with ``w = z + (k3 * z + k5 * z + k7 * z) / 3`` on the map of tokens; a token before the patches
    meets the kernels' centres only.

    Args:
        width: D. bottleneck: h.
        grid: patch tokens (rows, columns), prefix: tokens before them; None where the stream is a map (N, h, w, D).
    """

    def __init__(self, width: int, bottleneck: int, grid: tuple[int, int] | None, prefix: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_scale = nn.Parameter(torch.full((width,), 1e-6))
        self.input_scale = nn.Parameter(torch.ones(width))
        self.down = nn.Linear(width, bottleneck)
        self.filters = nn.ModuleList(
            nn.Conv2d(bottleneck, bottleneck, size, padding=size // 2, groups=bottleneck) for size in KERNELS
        )
        self.mix = nn.Conv2d(bottleneck, bottleneck, 1)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(bottleneck, width)
        self.grid = grid
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        z = self.down(self.norm(x) * self.norm_scale + x * self.input_scale)
        kernel, bias = self._filter()
        if self.grid is None:
            z = self._filtered(z.movedim(-1, 1), kernel, bias).movedim(1, -1)
        else:
            alone, patches = z[:, : self.prefix], z[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
            alone = alone * kernel[:, 0, REACH, REACH] + bias
            patches = self._filtered(patches, kernel, bias).flatten(2).transpose(1, 2)
            z = torch.cat((alone, patches), dim=1)
        z = z + F.linear(z, self.mix.weight[:, :, 0, 0], self.mix.bias)
        return x + self.up(self.dropout(F.gelu(z)))

    def _filter(self) -> tuple[Tensor, Tensor]:
        """The skip and the mean of the three convolutions as one: a kernel (h, 1, 7, 7) and a bias (h,)."""
        convs = [cast(nn.Conv2d, conv) for conv in self.filters]
        kernels = [F.pad(conv.weight, [REACH - conv.weight.shape[-1] // 2] * 4) for conv in convs]
        biases = [cast(Tensor, conv.bias) for conv in convs]
        identity = F.pad(torch.ones_like(kernels[0][:, :, :1, :1]), [REACH] * 4)
        return torch.stack(kernels).sum(0) / 3.0 + identity, torch.stack(biases).sum(0) / 3.0

    def _filtered(self, z: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Maps (N, h, rows, columns) -> the same."""
        return F.conv2d(z, kernel, bias, padding=REACH, groups=len(kernel))


@METHODS.register("mona", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class Mona(Method):
    """An adapter of visual filters after attention and after the MLP (Yin et al. 2025, arXiv:2408.08345, section 3.2).

    Maps the stream x after each residual add: ``x + up(gelu(f(down(s1 * LN(x) + s2 * x))))``, f the mean of depthwise
    3x3, 5x5 and 7x7 convolutions and a 1x1 one, each with a skip, on the map of tokens (N, h, w, bottleneck). All start
    as torch starts them, s1 at 1e-6, s2 at 1, so the start is not the identity. 2Dh + 5D + h² + 88h parameters an
    adapter with bottleneck h: 2,684,928 on ViT-B/16.

    The paper's backbone is Swin. On a ViT the class token is convolved alone, as in `convpass`. The official code's
    `factor` is unused: its bottleneck is 64 (swin_transformer_mona.py).
    """

    identity_at_start: ClassVar[bool] = False

    bottleneck: Count = 64
    dropout: Rate = 0.1

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            if anatomy.grid is None and not block.map_stream:
                raise Unsupported(f"{anatomy.name} has no token grid to filter")
            for branch in block.branches:
                branch.add_after_add(
                    MultiCognitive(block.width, self.bottleneck, anatomy.grid, anatomy.prefix_tokens, self.dropout)
                )

"""ST-Adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, Insert
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..ranges import NOT_EMPTY, Count


class SpatioTemporalAdapter(Insert):
    """``x + up(conv(down(x)))`` on the patch tokens of x (N·T, L, D); tokens before them pass as they are.

    The convolution is depthwise over frames, rows and columns. It starts at zero, and so does what is added.

    Args:
        width: D. bottleneck: h. kernel: (frames, rows, columns), odd.
        frames: T. grid: patch tokens (rows, columns), prefix: tokens before them.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        kernel: tuple[int, int, int],
        frames: int,
        grid: tuple[int, int],
        prefix: int,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.grid = grid
        self.prefix = prefix
        self.down = nn.Linear(width, bottleneck)
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(bottleneck, bottleneck, kernel, padding=padding, groups=bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.conv.weight)
        for layer in (self.down, self.conv, self.up):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        before, patches = x[:, : self.prefix], x[:, self.prefix :]
        hidden = self.down(patches).unflatten(0, (-1, self.frames)).movedim(-1, 1)  # (N, h, T, P)
        if self.conv.weight.shape[3:] == (1, 1):  # the same in two dimensions, several times as fast on a CPU
            weight, padding = self.conv.weight.flatten(3), (self.conv.weight.shape[2] // 2, 0)
            hidden = F.conv2d(hidden, weight, self.conv.bias, padding=padding, groups=len(weight))
        else:
            hidden = self.conv(hidden.unflatten(3, self.grid)).flatten(3)
        return torch.cat((before, patches + self.up(hidden.movedim(1, -1).flatten(0, 1))), dim=1)


class FrameMeanBeforeNorm(Insert):
    """The mean over the frames of each clip: (N·T, …) -> (N, …)."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, self.frames)).mean(dim=1)


@METHODS.register("st_adapter", family="video", tracks=("video",))
@dataclass
class STAdapter(Method):
    """Bottlenecks with a convolution over time in an image ViT (Pan et al. 2022, arXiv:2206.13559, section 3.3).

    ``x + up(DWConv3d(down(x)))`` on the patch tokens, x (N·T, L, D), without activation, as the official code computes
    it (models_adapter.py; its equation 5 has an f for one). The convolution is depthwise, 3x1x1 in frames, rows and
    columns; its weight and all biases start at zero. The adapters stand before the MLP of every block (``targets``
    "mlp", the paper's 12x on ViT-B, 7,110,144 parameters: 2Dh + D + h + 4h a block with h = 384), or before attention,
    too ("24x", 14,220,288; what Something-Something V2 gets). `layers`: only the last so many blocks have them, as the
    official adapter_layers (12 of 12 in both). Everything else is frozen, the final norm too.

    A clip's tokens are averaged over time, then normed, then read by the head. This is why `identity_at_start` is
    False: nothing is added to the frames' tokens yet, but an image method norms each frame before the mean. On a still
    clip the two agree.

    Where the head reads the class token, nothing of the last block's adapter before the MLP can reach it (see
    `unreached`); the paper counts it and so do we. The official head has a dropout of 0.5; here the head is the
    protocol's. The official switch that should turn cuDNN off for the convolution turns it off when it says not to,
    which changes speed alone. The official grid is square and has one token before it; any works here.
    """

    identity_at_start: ClassVar[bool] = False

    bottleneck: Count = 384
    kernel: tuple[Count, Count, Count] = (3, 1, 1)
    targets: Annotated[tuple[Literal["attention", "mlp"], ...], NOT_EMPTY] = ("mlp",)
    layers: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(size % 2 == 0 for size in self.kernel):
            raise ValueError(f"kernel={self.kernel} must be odd along frames, rows and columns")

    def adapt(self, anatomy: Anatomy) -> None:
        frames, blocks = anatomy.clip_length, anatomy.blocks
        if anatomy.grid is None:
            raise Unsupported(f"{anatomy.name} has no token grid: its stream is a map")
        for block in blocks if self.layers is None else blocks[-self.layers :]:
            for target in self.targets:
                adapter = SpatioTemporalAdapter(
                    block.width, self.bottleneck, self.kernel, frames, anatomy.grid, anatomy.prefix_tokens
                )
                if target == "attention":
                    block.add_before(adapter)
                else:
                    block.attention.add_after_add(adapter)
        anatomy.add_after_blocks(FrameMeanBeforeNorm(frames))

    def unreached(self, anatomy: Anatomy) -> str:
        """The last adapter before an MLP: no attention follows to carry patch tokens to the class token."""
        last = anatomy.blocks[-1].module
        [name] = (name for name, module in anatomy.model.named_modules() if module is last)
        return f"*{name}.slots.attention.after_add.*"

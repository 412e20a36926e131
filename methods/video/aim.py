"""AIM: adapting image models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Insert
from ...backbones.anatomy.parts import Attention
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..parts.bottleneck import Bottleneck
from ..ranges import NOT_EMPTY, Positive, Rate


class ClipAdapter(Bottleneck):
    """A bottleneck (N·T, L, D) -> (N·T, L, D) that stochastic depth drops, in training, for whole clips.

    Args:
        frames: T. drop_path: a clip's chance to do without.
    """

    def __init__(self, width: int, bottleneck: int, frames: int, drop_path: float, scale: float = 1.0) -> None:
        from timm.layers.drop import DropPath

        super().__init__(width, bottleneck, "gelu", dropout=0.0, scale=scale)
        self.frames = frames
        self.drop_path = DropPath(drop_path)
        nn.init.trunc_normal_(self.down.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(super().forward(x).unflatten(0, (-1, self.frames))).flatten(0, 1)


class TemporalAttention(Insert):
    """``x + adapter(attention(norm(x)))`` on x (N·T, L, D), the attention between the T tokens of one place.

    Args:
        branch: the attention branch whose own frozen norm and operator are run; they stay the backbone's.
        adapter: after the operator. adapter_in: before it, where there are two.
    """

    norm: nn.Module
    attention: nn.Module

    def __init__(self, branch: Attention, adapter: ClipAdapter, adapter_in: Bottleneck | None) -> None:
        super().__init__()
        self.share("norm", branch.norm.module, owner=False)
        self.share("attention", branch.module, owner=False)
        self.adapter = adapter
        self.adapter_in = adapter_in

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        if self.adapter_in is not None:
            normed = self.adapter_in(normed)
        over_time = normed.unflatten(0, (-1, self.adapter.frames)).transpose(1, 2)  # (N, L, T, D)
        attended = self.attention(over_time.flatten(0, 1)).unflatten(0, over_time.shape[:2])
        return x + self.adapter(attended.transpose(1, 2).flatten(0, 1))


class TemporalEmbedding(Insert):
    """Adds to each token (N·T, L, D) a learned vector of its frame; zero at first."""

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(frames, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(0, (-1, len(self.embedding))) + self.embedding).flatten(0, 1)


Step = Literal["spatial", "temporal", "joint"]


@METHODS.register("aim", family="video", tracks=("video",))
@dataclass
class AIM(Method):
    """Spatial, temporal and joint adapters in an image ViT (Yang et al. 2023, arXiv:2302.03024, equations 3-6).

    In every block, x (N·T, L, D), A the block's own frozen attention, each adapter a bottleneck with GELU:
    ``x + T(A(norm1(x)))`` with A along time, ``x + S(A(norm1(x)))`` with A within the frame,
    ``x + MLP(norm2(x)) + scale * M(norm2(x))``. Only S has an inner skip (and T_in before the temporal attention, with
    two temporal adapters). `down` is truncated normal with a standard deviation of 0.02, `up` and biases zero.
    A temporal embedding (T, D), zero at first, is added to the tokens where the positions are; it trains, and so does
    the final norm. Each frame is normed, then the mean over time is classified: with untrained adapters, that is
    `frame_mean`.

    (2Dh + h + D) for each adapter, three or four a block, and T·D + 2D: with ``ratio`` h/D = 0.25 on ViT-B/16
    10,651,392 (14,201,856 with two temporal adapters) + 768·T + 1,536. The defaults are Kinetics-400's;
    Something-Something V2 has ``scale=1`` and ``temporal_adapters=2``. ``steps`` leaves steps out.

    Stochastic depth drops T and M of a clip with a chance that grows from 0 in the first block to ``drop_path`` in the
    last. The official code (mmaction/models/backbones/vit_clip.py) calls it on (L, N·T, D), so that it drops the tokens
    of a place in all clips at once instead of a clip. Where a block scales its attention's output (DINOv2's layer
    scale), T reads it unscaled.
    """

    ratio: Positive = 0.25
    scale: float = 0.5
    temporal_adapters: Literal[1, 2] = 1
    drop_path: Rate = 0.2
    steps: Annotated[tuple[Step, ...], NOT_EMPTY] = ("spatial", "temporal", "joint")

    def adapt(self, anatomy: Anatomy) -> None:
        frames, blocks = anatomy.clip_length, anatomy.blocks
        if anatomy.grid is None:
            raise Unsupported(f"{anatomy.name} has no token grid: its stream is a map")
        width = anatomy.width
        hidden = max(int(width * self.ratio), 1)
        rates = torch.linspace(0, self.drop_path, len(blocks), device="cpu").tolist()
        for block, rate in zip(blocks, rates, strict=True):
            if "temporal" in self.steps:
                adapter_in = self._with_skip(width, hidden) if self.temporal_adapters == 2 else None
                adapter = ClipAdapter(width, hidden, frames, rate)
                block.add_before(TemporalAttention(block.attention, adapter, adapter_in))
            if "spatial" in self.steps:
                block.attention.add_serial(self._with_skip(width, hidden))
            if "joint" in self.steps:
                block.mlp.add_parallel_norm(ClipAdapter(width, hidden, frames, rate, self.scale))
        anatomy.add_before_blocks(TemporalEmbedding(frames, width))
        norm = {id(parameter) for parameter in anatomy.norm.module.parameters()}
        anatomy.train(lambda _, parameter: id(parameter) in norm)

    @staticmethod
    def _with_skip(width: int, hidden: int) -> Bottleneck:
        adapter = Bottleneck(width, hidden, "gelu", dropout=0.0, skip=True)
        nn.init.trunc_normal_(adapter.down.weight, std=0.02)
        return adapter

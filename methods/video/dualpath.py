"""DualPath: a path for space, a path for time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, Insert
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..parts.bottleneck import Bottleneck
from ..ranges import Count, Positive, Rate
from ..selective.spt import CLASS_TOKENS

if TYPE_CHECKING:
    from ..adapted_model import AdaptedModel

CELL = 4
"""Width of a frame in the map of frame numbers that is resized to the token grid; the official code's."""


def picked(frames: int, count: int) -> list[int]:
    """`count` of `frames` frames, in order and evenly spaced from the first; where they are too few, repeated."""
    return [index * frames // count for index in range(count)]


def grid_images(clips: Tensor, side: int) -> Tensor:
    """Clips (N, G·side², C, H, W) -> grids of their frames (N, G, C, H, W), row by row.

    The frames are joined at their own size, then resized bilinearly: at this whole factor no pixel is mixed of two.
    """
    n, _, _, height, width = clips.shape
    cells = clips.unflatten(1, (-1, side, side))  # (N, G, side, side, C, H, W)
    joined = cells.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, clips.shape[2], side * height, side * width)
    return F.interpolate(joined, (height, width), mode="bilinear").unflatten(0, (n, -1))


def frame_numbers(grids: int, side: int, tokens: tuple[int, int]) -> Tensor:
    """Which frame each patch token of each grid shows (grids, rows · columns), from 1 on and on from grid to grid.

    A token on a border has a number between its frames'.
    """
    numbers = torch.arange(1.0, grids * side**2 + 1).view(grids, 1, side, side)
    enlarged = F.interpolate(numbers, scale_factor=float(CELL), mode="nearest")
    return F.interpolate(enlarged, tokens, mode="bilinear").flatten(1)


def sine_cosine(numbers: Tensor, width: int) -> Tensor:
    """Numbers (…) -> ``sin(n·w_k), cos(n·w_k)`` in turn (…, width), with ``w_k = 10000^(-2k/width)``."""
    angles = numbers[..., None] * 10_000 ** (-torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class TemporalAdapter(Insert):
    """Maps the tokens of grids by `temporal`; of x (N·(grids + frames), L, D), those of frames pass as they are."""

    def __init__(self, adapter: Bottleneck, grids: int, frames: int) -> None:
        super().__init__()
        self.temporal = adapter
        self.sizes = (grids, frames)

    def forward(self, x: Tensor) -> Tensor:
        grids, frames = x.unflatten(0, (-1, sum(self.sizes))).split(self.sizes, dim=1)
        return torch.cat((self.temporal(grids), frames), dim=1).flatten(0, 1)


class SpatialAdapter(Insert):
    """`spatial` of the tokens of frames, zero for those of grids; x (N·(grids + frames), L, D)."""

    def __init__(self, adapter: Bottleneck, grids: int, frames: int) -> None:
        super().__init__()
        self.spatial = adapter
        self.sizes = (grids, frames)

    def forward(self, x: Tensor) -> Tensor:
        grids, frames = x.unflatten(0, (-1, sum(self.sizes))).split(self.sizes, dim=1)
        added = self.spatial(frames)
        return torch.cat((added.new_zeros(grids.shape), added), dim=1).flatten(0, 1)


class GridPositions(Insert):
    """Gives the tokens of grids positions of their own in place of the backbone's; x (N·(grids + frames), L, D).

    A learned position for each token, N(0, 1/D) at first, and sines and cosines of the frame that it shows.

    Args:
        owner, name: the module that holds the backbone's position embedding (…, P, D), of the last P tokens, and the
            embedding's name there.
        numbers: of the frames that tokens show (grids, L).
    """

    owner: nn.Module
    temporal: Tensor

    def __init__(self, owner: nn.Module, name: str, numbers: Tensor, width: int, frames: int) -> None:
        super().__init__()
        self.share("owner", owner, owner=False)
        self.name = name
        self.sizes = (len(numbers), frames)
        self.spatial = nn.Parameter(torch.randn(numbers.shape[1], width) * width**-0.5)
        self.register_buffer("temporal", sine_cosine(numbers, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        own = getattr(self.owner, self.name)
        own = F.pad(own, (0, 0, x.shape[1] - own.shape[-2], 0))  # tokens in front may have none
        grids, frames = x.unflatten(0, (-1, sum(self.sizes))).split(self.sizes, dim=1)
        return torch.cat((grids - own + self.spatial + self.temporal, frames), dim=1).flatten(0, 1)


@METHODS.register("dualpath", family="video", tracks=("video",))
@dataclass
class DualPath(Method):
    """Frames on one path, grids of small frames on another (Park et al. 2023, arXiv:2303.09857, section 3).

    Both go through one frozen ViT, with bottlenecks (GELU, no skip, h/D = ``ratio``) of their own in every block:

    - space: `spatial_frames` frames, ``x + A(n) + S(n)`` with n = norm1(x), then ``x + MLP(n) + S_mlp(n)`` with
      n = norm2(x);
    - time: images of ``grid`` x ``grid`` shrunk frames, ``x + T(A(T_b(norm1(x))))``, then
      ``x + T_mlp(MLP(norm2(x)))``. Their tokens have positions of their own: a learned table (L, D), random at first,
      and sines and cosines of the number of the frame that a token shows (0 for a class token).

    The mean of the grids' features and the mean of the frames' features are joined (N, 2F) and read by the head.

    5·(2Dh + h + D) a block, 17,752,320 on ViT-B/16. As in the official code the class token and the backbone's
    positions train too, and the new positions: D + 2·(197·D) there, 18,055,680 in all. (The paper's figure 3 has
    everything frozen but adapters and classifier.) What the official code counts besides is the head and the positions
    of the text tower, which no video reaches.

    `identity_at_start` is False because only the path of space is the image model then. The last layers of adapters are
    zero, and T and T_mlp have no skip: no block adds anything to a grid's tokens, and its class token's features are
    the same for every clip.

    The paper's clips have a multiple of 16 frames. Of T others, each of the ceil(T / 16)·16 places of the grids gets
    the frame as far into the clip, so some are shown twice; the path of space takes 8 evenly spaced frames, or all.

    From park-jungin/DualPath, CLIP_custom/clip/model.py and engine_finetune_clip.py, which do not run as published: a
    statement stands in the signature of the vision transformer's constructor, and its forward reads `cls_t` before
    anything is assigned to it (for an attention map that nothing uses). The official head is an MLP over CLIP's
    projected features; here it is the protocol's, over what the backbone pools.
    """

    identity_at_start: ClassVar[bool] = False

    ratio: Positive = 0.25
    grid: Count = 4
    spatial_frames: Count = 8
    dropout: Rate = 0.1

    def adapt(self, anatomy: Anatomy) -> None:
        sizes, blocks = self._images(anatomy.clip_length), anatomy.blocks
        if anatomy.grid is None:
            raise Unsupported(f"{anatomy.name} has no token grid: its stream is a map")
        if anatomy.stem.shift_sink is None:
            raise Unsupported(f"{anatomy.name} has no position embedding that grids of frames could do without")
        owner, name, _ = anatomy.stem.shift_sink
        width = anatomy.width
        hidden = max(int(width * self.ratio), 1)

        def adapter() -> Bottleneck:
            return Bottleneck(width, hidden, "gelu", self.dropout)

        for block in blocks:
            block.attention.add_after_norm(TemporalAdapter(adapter(), *sizes))
            block.attention.add_serial(TemporalAdapter(adapter(), *sizes))
            block.attention.add_parallel_norm(SpatialAdapter(adapter(), *sizes))
            block.mlp.add_serial(TemporalAdapter(adapter(), *sizes))
            block.mlp.add_parallel_norm(SpatialAdapter(adapter(), *sizes))
        numbers = F.pad(frame_numbers(sizes[0], self.grid, anatomy.grid), (anatomy.prefix_tokens, 0))
        anatomy.add_before_blocks(GridPositions(owner, name, numbers, width, sizes[1]))
        positions = getattr(owner, name)
        anatomy.train(lambda name, parameter: parameter is positions or name.split(".")[-1] in CLASS_TOKENS)

    def _images(self, frames: int) -> tuple[int, int]:
        """How many grids, and how many frames, stand for a clip."""
        return -(-frames // self.grid**2), min(frames, self.spatial_frames)

    def clip_width(self, feature_dim: int) -> int:
        return 2 * feature_dim

    def clip_features(self, model: AdaptedModel, clips: Tensor) -> Tensor:
        length = clips.shape[1]
        grids, frames = self._images(length)
        shown = clips[:, picked(length, grids * self.grid**2)]
        images = torch.cat((grid_images(shown, self.grid), clips[:, picked(length, frames)]), dim=1)
        features = model.encode(images.flatten(0, 1)).unflatten(0, (len(clips), -1))
        return torch.cat((features[:, :grids].mean(dim=1), features[:, grids:].mean(dim=1)), dim=-1)

    def unreached(self, anatomy: Anatomy) -> str:
        """The temporal adapters of a backbone without biases, as random ones are.

        T_b starts at zero, so that attention reads zeros; without biases it gives zeros, too, and neither T nor T_b can
        move. Pretrained backbones have biases.
        """
        return "*.temporal.*"

"""Square views of a frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2


def square_crops(frame: Tensor, size: int, count: int) -> Tensor:
    """A frame (3, H, W) -> `count` square views of it (count, 3, size, size).

    The shorter side is resized to `size` (bilinear, antialiased). One view is the middle of the longer side; three are
    its start, its middle and its end, as in the tests of ST-Adapter and mmaction2 (ThreeCrop).

    Raises:
        ValueError: on another count.
    """
    if count not in (1, 3):
        raise ValueError("there are 1 or 3 crops of a frame")
    height, width = frame.shape[-2:]
    short = min(height, width)
    resized = v2.functional.resize(frame, [round(height * size / short), round(width * size / short)], antialias=True)
    margin = max(resized.shape[-2:]) - size
    starts = (margin // 2,) if count == 1 else (0, margin // 2, margin)
    return torch.stack([resized.narrow(-2 if height > width else -1, start, size) for start in starts])

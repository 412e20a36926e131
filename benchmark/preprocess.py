"""From a task's pixels to a backbone's input: one named preprocessing for every method."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones import Anatomy


class Preprocess:
    """uint8 images (N, 3, H, W) or clips (N, T, 3, H, W) -> normalised float32 at the backbone's input size.

    Bicubic, antialiased resizing where the sizes differ, then the mean and standard deviation of the weights.
    """

    def __init__(self, anatomy: Anatomy, device: torch.device) -> None:
        self.size = anatomy.image_size
        self.mean = torch.tensor(anatomy.mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(anatomy.std, device=device).view(3, 1, 1)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        frames = images.to(self.device).flatten(0, -4).float() / 255
        if frames.shape[-2:] != self.size:
            frames = F.interpolate(frames, size=self.size, mode="bicubic", antialias=True, align_corners=False)
            frames = frames.clamp(0, 1)
        return ((frames - self.mean) / self.std).unflatten(0, images.shape[:-3])

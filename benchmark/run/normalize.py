"""From a task's pixels to a backbone's input: one named preprocessing for every method."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2

from ...backbones import Anatomy
from ...methods import Views

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels."""


class Preprocess:
    """uint8 images (N, 3, H, W) or clips (N, T, 3, H, W) -> normalised float32 at the backbone's input size.

    Bicubic, antialiased resizing where the sizes differ, then the mean and standard deviation of the weights, or those
    of ImageNet (see `Protocol.normalization`).

    Attributes:
        key: what decides the result.
    """

    def __init__(self, anatomy: Anatomy, device: torch.device, normalization: str = "backbone") -> None:
        self.size = anatomy.image_size
        mean, std = IMAGENET if normalization == "imagenet" else (anatomy.mean, anatomy.std)
        self.mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(std, device=device).view(3, 1, 1)
        self.device = device
        self.key = (self.size, mean, std)

    def __call__(self, images: Tensor) -> Tensor:
        frames = images.to(self.device).flatten(0, -4).float() / 255
        if frames.shape[-2:] != self.size:
            frames = F.interpolate(frames, size=self.size, mode="bicubic", antialias=True, align_corners=False)
            frames = frames.clamp(0, 1)
        return ((frames - self.mean) / self.std).unflatten(0, images.shape[:-3])

    def views(self, images: Tensor, wanted: Views) -> Tensor:
        """uint8 images (N, 3, H, W) -> `wanted` views of each, preprocessed (N, V, 3, h, w).

        Crops are taken from the task's own pixels, with 3/4 to 4/3 of the image's aspect ratio, by torch's global
        random numbers.
        """
        crop = v2.Compose(
            [
                v2.RandomResizedCrop(self.size, wanted.scale, interpolation=InterpolationMode.BICUBIC, antialias=True),
                v2.RandomHorizontalFlip(),
                *([v2.AugMix(severity=1, all_ops=False)] if wanted.augmix else []),
            ]
        )
        crops = [crop(image) for image in images for _ in range(wanted.count - 1)]
        itself = self(images)[:, None]
        if not crops:
            return itself
        return torch.cat((itself, self(torch.stack(crops)).unflatten(0, (len(images), -1))), dim=1)

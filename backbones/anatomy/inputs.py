"""What a backbone reads: the kind of its input, and how a task's raw examples become it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import Unsupported

Normalization = Literal["backbone", "imagenet"]
"""Of pixels: as the weights expect it, or ImageNet's mean and standard deviation for all."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels."""


class InputKind(ABC):
    """One kind of input: pixels (`Pixels`), points, …"""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one prepared example, or one frame of a clip. A raw example has as many axes."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """What decides how raw examples are prepared."""

    @abstractmethod
    def prepare(self, raw: Tensor, device: torch.device) -> Tensor:
        """A task's examples (…, *raw shape) -> float32 (…, *shape) on `device`, as the backbone reads them."""

    def normalized(self, normalization: Normalization) -> Self:
        """The same, as a protocol wants it normalised; only pixels know more than one way."""
        return self

    def crops(self, raw: Tensor, device: torch.device, count: int, scale: tuple[float, float], augmix: bool) -> Tensor:
        """Examples (N, *raw shape) -> the example itself and random views of it, prepared.

        Args:
            count: V, the example itself included.
            scale: a crop's share of the area, uniform between these.
            augmix: mix the crops with chains of distortions, at severity 1 (Hendrycks et al. 2020, arXiv:1912.02781).

        Returns:
            (N, V, *shape), drawn from torch's global random numbers.

        Raises:
            Unsupported: where the kind has no such views.
        """
        raise Unsupported(f"views are crops of images; this backbone reads {type(self).__name__.lower()}")


@dataclass(frozen=True)
class Pixels(InputKind):
    """RGB images: raw ones are uint8 (3, H, W).

    Bicubic, antialiased resizing where the sizes differ, then the mean and standard deviation.

    Attributes:
        size: rows and columns. mean, std: of the normalisation, on pixels in [0, 1].
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return 3, *self.size

    @property
    def key(self) -> Hashable:
        return self.size, self.mean, self.std

    def prepare(self, raw: Tensor, device: torch.device) -> Tensor:
        frames = raw.to(device).flatten(0, -4).float() / 255
        if frames.shape[-2:] != self.size:
            frames = F.interpolate(frames, size=self.size, mode="bicubic", antialias=True, align_corners=False)
            frames = frames.clamp(0, 1)
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (self.mean, self.std))
        return ((frames - mean) / std).unflatten(0, raw.shape[:-3])

    def normalized(self, normalization: Normalization) -> Self:
        return replace(self, mean=IMAGENET[0], std=IMAGENET[1]) if normalization == "imagenet" else self

    def crops(self, raw: Tensor, device: torch.device, count: int, scale: tuple[float, float], augmix: bool) -> Tensor:
        """As `InputKind.crops`: from the task's own pixels, 3/4 to 4/3 of the aspect ratio, flipped by chance."""
        from torchvision.transforms import InterpolationMode, v2  # takes as long to import as torch

        crop = v2.Compose(
            [
                v2.RandomResizedCrop(self.size, scale, interpolation=InterpolationMode.BICUBIC, antialias=True),
                v2.RandomHorizontalFlip(),
                *([v2.AugMix(severity=1, all_ops=False)] if augmix else []),
            ]
        )
        made = [crop(image) for image in raw for _ in range(count - 1)]
        itself = self.prepare(raw, device)[:, None]
        if not made:
            return itself
        return torch.cat((itself, self.prepare(torch.stack(made), device).unflatten(0, (len(raw), -1))), dim=1)

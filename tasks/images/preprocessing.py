"""Preprocessings by name: how a file becomes pixels of one size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import PeftmarkError

_NAME = re.compile(r"(squash|crop)-(bicubic|bilinear)-([1-9]\d{0,3})")
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocessing:
    """``<fit>-<interpolation>-<size>``, e.g. ``squash-bicubic-224`` (VTAB) or ``crop-bicubic-224`` (CLIP).

    Attributes:
        fit: ``squash`` changes the aspect ratio; ``crop`` makes the shorter side `size` pixels long and takes the
            middle, with torchvision's rounding (``Resize`` and ``CenterCrop``).
        interpolation: Pillow's, which is antialiased.
        size: pixels, of each side.
    """

    fit: Literal["squash", "crop"]
    interpolation: Literal["bicubic", "bilinear"]
    size: int

    @classmethod
    def named(cls, name: str) -> Preprocessing:
        """
        Raises:
            PeftmarkError: on a name of another form.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise PeftmarkError(
                f"unknown preprocessing {name!r}: write squash or crop, bicubic or bilinear, and a size, "
                f"as in squash-bicubic-224"
            )
        fit, interpolation, size = match.groups()
        return cls(fit, interpolation, int(size))  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        return f"{self.fit}-{self.interpolation}-{self.size}"

    @property
    def shape(self) -> tuple[int, ...]:
        return 3, self.size, self.size

    def read(self, path: Path) -> NDArray[np.uint8]:
        """A file's pixels, uint8 (3, size, size). A rotation in EXIF is not applied, as in the papers' loaders.

        Raises:
            Exception: of many kinds, where Pillow cannot decode the file.
        """
        with Image.open(path) as file:
            return self(file.convert("RGB"))

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image of any size -> uint8 (3, size, size)."""
        size, kind = self.size, _FILTERS[self.interpolation]
        if self.fit == "squash":
            image = image.resize((size, size), kind)
        else:
            width, height = image.size
            short = min(width, height)
            width, height = int(size * width / short), int(size * height / short)
            left, top = round((width - size) / 2), round((height - size) / 2)
            image = image.resize((width, height), kind).crop((left, top, left + size, top + size))
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

"""The video baseline: any image method, frames averaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method, make_method


@METHODS.register("frame_mean", family="video", tracks=("video",))
@dataclass
class FrameMean(Method):
    """Adapt the image backbone by an image method and classify the mean of the frames' features.

    Each frame is encoded and normalised by itself, then the mean over time is taken (as AIM does), then the head: the
    order of frames cannot matter. `image_method` is ``linear`` (a frozen backbone) or any other image method, whose
    hyper-parameters go into `image_config`.
    """

    image_method: str = "linear"
    image_config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "image" not in METHODS.entry(self.image_method).metadata["tracks"]:
            raise ValueError(f"image_method={self.image_method!r} is not an image method")
        if METHODS[self.image_method].needs_batches:
            raise ValueError(
                f"image_method={self.image_method!r} scores parameters on clips by itself: use it directly"
            )

    def adapt(self, anatomy: Anatomy) -> None:
        make_method(self.image_method, self.image_config).adapt(anatomy)

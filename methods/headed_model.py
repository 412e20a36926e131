"""Adapted models with a head: features -> what the task's objective asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..backbones import Anatomy
from .adapted_model import AdaptedModel
from .method import Method

if TYPE_CHECKING:
    from ..tasks import Objective


class HeadedModel(AdaptedModel):
    """What the objective reads of the backbone -> its head; of a video (N, T, 3, H, W), the method's `clip_features`.

    By default each frame is normalised, then the mean is taken (as AIM does).
    """

    def __init__(self, anatomy: Anatomy, method: Method, objective: Objective, num_frames: int | None = None) -> None:
        anatomy.drop_text()  # a head needs none: it would take memory and be counted
        anatomy.num_frames = num_frames
        super().__init__(anatomy, method, objective)
        self.num_frames = num_frames
        width = anatomy.output_width(self.output)
        self.head = objective.head(width if num_frames is None else method.clip_width(width))
        self._reset_head()

    def restart(self) -> None:
        super().restart()
        self._reset_head()

    def _reset_head(self) -> None:
        self.objective.reset_head(self.head)
        self.method.start_head(self.head)

    def head_parameters(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), or (N, T, 3, H, W) with ``num_frames=T`` -> what the head reads (N, …, its width)."""
        return self.encode(images) if self.num_frames is None else self.method.clip_features(self, images)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), or (N, T, 3, H, W) with ``num_frames=T`` -> the objective's outputs, logits (N, C) say."""
        return self.head(self.features(images))

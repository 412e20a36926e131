"""A constant in the place of a vision-language model's own logit scale."""

from __future__ import annotations

from torch import Tensor

from ...backbones import Insert, TextTower


class LogitScale(Insert):
    """``scale * cosines``, without the model's own bias, which no softmax over classes notices."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, cosines: Tensor) -> Tensor:
        return self.scale * cosines


def add_logit_scale(text: TextTower, scale: float | None) -> None:
    """Let `scale` make logits of cosines; with None the model's own still does."""
    if scale is not None:
        text.insert_scale(LogitScale(scale))

"""FISH Mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches, Method
from ..parts.scoring import check_share, draw, entries_to_keep, squared_gradients, top_entries


@METHODS.register("fish_mask", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class FishMask(Method):
    """Train the entries with the largest Fisher information (Sung et al. 2021, arXiv:2111.09839).

    The empirical Fisher of an entry is ``Σ_i (∂ CE(f(x_i), y_i) / ∂θ)²``, over `samples` training images one at a time,
    at the pretrained weights and the fresh head (on the open vocabulary, the class names' text features). The
    ``int(keep · all parameters) − head`` largest of the whole image backbone, `all` counting the head, train; the head
    does too, and the mask stays. On ViT-B/16 with 100 classes, by default, 429,377 − 76,900 = 352,477 entries.

    As cifar10-fast/fisher.py with sample type ``label``. There AdamW's decay and momentum go on moving entries outside
    the mask; here these stay bit-identical. There the images come from a shuffled loader; here from a fixed random
    order, so that a mask can be had again. An entry without any gradient is not chosen, so the count can be smaller
    than the budget where a backbone has parameters that do not reach the loss.
    """

    needs_batches: ClassVar[bool] = True

    keep: float = 0.005
    samples: int = 1024

    def __post_init__(self) -> None:
        check_share(self.keep)
        if self.samples < 1:
            raise ValueError("samples must be at least 1")

    def prepare(self, model: AdaptedModel, batches: Batches) -> None:
        k = entries_to_keep(model, self.keep)
        scores = squared_gradients(model, draw(batches, size=1, count=self.samples))
        model.anatomy.train_entries(top_entries(scores, k))

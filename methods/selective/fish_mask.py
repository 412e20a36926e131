"""FISH Mask."""

from __future__ import annotations

from dataclasses import dataclass

from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..parts.scoring import draw, entries_to_keep, squared_gradients, top_entries
from ..ranges import Count, Share
from ..scoring_method import Scores, ScoringMethod, Selection


@METHODS.register("fish_mask", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class FishMask(ScoringMethod):
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

    keep: Share = 0.005
    samples: Count = 1024

    def scores_of(self, model: AdaptedModel, batches: Batches) -> Scores:
        entries_to_keep(model, self.keep)  # too small a budget is refused before any scoring
        return squared_gradients(model, draw(batches, size=1, count=self.samples))

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        return top_entries(scores, entries_to_keep(model, self.keep))

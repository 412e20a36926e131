"""A structured mask of attention heads."""

from __future__ import annotations

from dataclasses import dataclass

from ...backbones import Anatomy
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..parts.units import Score, Units, choose_units, entry_scores
from ..ranges import Share
from ..scoring_method import Scores, ScoringMethod, Selection


@METHODS.register("head_mask", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class HeadMask(ScoringMethod):
    """Train the attention heads that matter most (the survey's structured mask, section 3.2.3, equation 8).

    Of all L·H heads together the share `keep` with the largest score trains, at least one head: its d = D/H rows of the
    q, k and v projections with their biases, and its d columns of the output projection. 4·d·D + 3·d parameters a head:
    196,800 on ViT-B/16, so 7 of 144 heads, 1,377,600, by default.

    The survey names no paper for it. The score is the sum of squared gradients over a head's entries, the group form
    of `spt`'s and `fish_mask`'s; ``score="magnitude"`` takes squared weights instead (a common pruning criterion; it
    ignores the data). Michel et al. 2019 (arXiv:1905.10650) score heads for pruning by the gradient of a gate on the
    head's output: how much the loss needs the head, not how much its weights would move.
    """

    keep: Share = 0.05
    score: Score = "gradient"

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            _ = block.attention  # a backbone without it is refused before any scoring

    def scores_of(self, model: AdaptedModel, batches: Batches) -> Scores:
        """Of entries: a unit's is the sum of those that belong to it."""
        return entry_scores(model, self.score, batches)

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        attentions = [block.attention for block in model.anatomy.blocks]
        heads = [Units((part.q, part.k, part.v), part.output, part.num_heads) for part in attentions]
        return choose_units(model, heads, self.keep, scores)

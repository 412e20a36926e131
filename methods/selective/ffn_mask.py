"""A structured mask of FFN nodes."""

from __future__ import annotations

from dataclasses import dataclass

from ...backbones import Anatomy
from ...errors import Unsupported
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..parts.units import Score, Units, choose_units, entry_scores
from ..ranges import Share
from ..scoring_method import Scores, ScoringMethod, Selection


@METHODS.register("ffn_mask", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class FfnMask(ScoringMethod):
    """Train the hidden nodes of the FFNs that matter most (the survey's structured mask, section 3.2.3, equation 8).

    Of all L·FFN nodes together the share `keep` with the largest score trains, at least one: its row of fc1 with the
    bias, and its column of fc2. 2·D + 1 parameters a node: 1,537 on ViT-B/16, so 737 of 36,864 nodes, 1,132,769, by
    default. The score is `head_mask`'s, summed over a node's entries; the survey names no paper.
    """

    keep: Share = 0.02
    score: Score = "gradient"

    def adapt(self, anatomy: Anatomy) -> None:
        for block in anatomy.blocks:
            hidden, read = block.mlp.inputs[0].out_features, block.mlp.output.in_features
            if hidden != read:
                raise Unsupported(f"{anatomy.name}: fc1 writes {hidden} values and fc2 reads {read}: no single nodes")

    def scores_of(self, model: AdaptedModel, batches: Batches) -> Scores:
        """Of entries: a unit's is the sum of those that belong to it."""
        return entry_scores(model, self.score, batches)

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        mlps = [block.mlp for block in model.anatomy.blocks]
        nodes = [Units(mlp.inputs, mlp.output, mlp.output.in_features) for mlp in mlps]
        return choose_units(model, nodes, self.keep, scores)

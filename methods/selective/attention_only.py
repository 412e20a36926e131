"""Fine-tuning of the attention layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method
from ..search_space import WHOLE_MATRICES, Dimension


@METHODS.register("attention_only", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class AttentionOnly(Method):
    """Train attention's q, k, v and output projections (Touvron et al. 2022, arXiv:2203.09795, section 4).

    L·(4·D² + 4·D) parameters: 28,348,416 on ViT-B/16, a third of its weights.

    The official code (deit/main.py, ``--attn-only``) trains the position embeddings beside them, because the paper
    changes the resolution; here the resolution is the backbone's and they stay frozen.
    """

    def search_space(self) -> Mapping[str, Dimension]:
        return {"learning_rate": WHOLE_MATRICES}

    def adapt(self, anatomy: Anatomy) -> None:
        linears = (linear.module for block in anatomy.blocks for linear in block.attention.projections.values())
        chosen = {id(parameter) for linear in linears for parameter in linear.parameters()}
        anatomy.train(lambda name, parameter: id(parameter) in chosen)

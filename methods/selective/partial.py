"""Partial fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...backbones import Anatomy
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method
from ..ranges import Count
from ..search_space import WHOLE_MATRICES, Dimension


@METHODS.register("partial", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class Partial(Method):
    """Train the last `k` blocks and the final norm (the Partial-k of Jia et al. 2022, arXiv:2203.12119, section 4.1).

    k·(12·D² + 13·D) + 2·D parameters of a ViT with FFN = 4·D: 7,089,408 on ViT-B/16 with k = 1, which is what VPT's
    code does for ``partial-1`` (src/models/vit_models.py: the last block and the ``encoder_norm``). Backward stops at
    the first block that trains. In Swin and ConvNeXt blocks are counted from the end, across stages; what lies between
    stages stays frozen, and so does a pooling by attention (SigLIP).
    """

    k: Count = 1

    def search_space(self) -> Mapping[str, Dimension]:
        return {"learning_rate": WHOLE_MATRICES}

    def adapt(self, anatomy: Anatomy) -> None:
        if self.k > len(anatomy.blocks):
            raise Unsupported(f"{anatomy.name} has {len(anatomy.blocks)} blocks, not k={self.k}")
        modules = (*(block.module for block in anatomy.blocks[-self.k :]), anatomy.norm.module)
        chosen = {id(parameter) for module in modules for parameter in module.parameters()}
        anatomy.train(lambda name, parameter: id(parameter) in chosen)

"""MaPLe: multi-modal prompt learning."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from ...backbones import Anatomy
from ...registry import METHODS
from ..parts.context_prompt import ContextPrompt
from ..parts.deep_prompts import TextPrompts, add_text_prompts
from ..parts.learned_context import DeepContextMethod
from ..parts.prompts import Prompts, add_prompts
from ..ranges import Count


class CoupledPrompts(Prompts):
    """Image prompts, at the stream's end, that are a linear projection of the text prompts of the same layer.

    Args:
        source: whose ``context`` (n_ctx, width) is projected; it belongs to the text tower.
        projection: width -> D.
    """

    source: ContextPrompt | TextPrompts

    def __init__(self, source: ContextPrompt | TextPrompts, projection: nn.Linear, replaced: int) -> None:
        super().__init__(at=None, replaced=replaced)
        self.share("source", source, owner=False)
        self.projection = projection

    def learned(self) -> Tensor:
        return self.projection(cast(Tensor, self.source.context))


@METHODS.register("maple", family="openvocab", tracks=("openvocab",))
@dataclass
class MaPLe(DeepContextMethod):
    """Text prompts in several layers, and their projections as image prompts (Khattak et al. 2023, arXiv:2210.03117).

    Section 3.2 of the paper, trainers/maple.py and clip/model.py of multimodal-prompt-learning. In the first `depth`
    layers:

    - text: `n_ctx` learned tokens P_i between start token and class name. P_0 starts as the first `n_ctx` tokens of
      `init_words` (the other words stay, frozen), or as N(0, 0.02) where it has fewer; P_1 … start as N(0, 0.02) and
      each takes the place of what came out of the block before.
    - image: ``F_i(P_i)``, F_i a linear layer width -> D with bias, behind all other tokens, after positions and before
      the norm in front of the blocks; replaced before each block likewise. F_1 … start as copies of one layer. The
      tokens leave before the final norm and pooling, which the class token does not notice.

    Layers are paired by their number; where one tower has fewer blocks than `depth`, both have prompts in as many as
    that. 3,555,072 parameters on CLIP ViT-B/16: 9 · 2 · 512 and 9 · (512 · 768 + 768). The official code has these
    widths written into it and so works on this size only.
    """

    n_ctx: Count = 2

    def adapt(self, anatomy: Anatomy) -> None:
        super().adapt(anatomy)
        text = anatomy.text_tower()
        depth = min(self.depth, len(text.blocks), len(anatomy.blocks))
        deep = add_text_prompts(text, self.n_ctx, depth)
        first, other = (nn.Linear(text.width, anatomy.width) for _ in range(2))
        coupled = [CoupledPrompts(cast(ContextPrompt, text.prompt), first, replaced=0)]
        coupled += [CoupledPrompts(source, copy.deepcopy(other), replaced=self.n_ctx) for source in deep]
        add_prompts(anatomy, coupled, self.n_ctx, before_first_norm=True)

"""Visual prompt tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.prompts import Prompts, add_prompts
from ..ranges import Count, Rate


class UniformPrompts(Prompts):
    """`length` tokens that are parameters (length, D), behind the prefix tokens; they start uniform in ±bound."""

    def __init__(self, width: int, length: int, prefix: int, bound: float, dropout: float, replaced: int = 0) -> None:
        super().__init__(prefix, replaced, dropout)
        self.prompts = nn.Parameter(torch.empty(length, width).uniform_(-bound, bound))

    def learned(self) -> Tensor:
        return self.prompts


def prompt_bound(anatomy: Anatomy) -> float:
    """Prompts start uniform in ±sqrt(6 / (3·patch² + D)): Xavier's bound for a patch embedding."""
    out, _, rows, columns = cast(Tensor, anatomy.stem.module.weight).shape
    return math.sqrt(6 / (3 * rows * columns + out))


def add_shallow_prompts(anatomy: Anatomy, length: int, dropout: float) -> None:
    """Prompts that go through all blocks. Raises Unsupported where the backbone has no place for them."""
    width, prefix = anatomy.blocks[0].width, anatomy.prefix_tokens
    add_prompts(anatomy, [UniformPrompts(width, length, prefix, prompt_bound(anatomy), dropout)], length)


@METHODS.register("vpt_shallow", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class VPTShallow(Method):
    """Learned prompt tokens at the input of the first block (Jia et al. 2022, arXiv:2203.12119, section 3.2).

    `prompt_length` tokens stand behind the class token, without position, and go through all blocks with the others:
    [x_0, P, E_0] -> [x_1, Z_1, E_1] -> …. They start uniform in ±sqrt(6 / (3·patch² + D)), so an untrained model is not
    the bare backbone (src/models/vit_prompt/vit.py). p·D parameters: 768·p on ViT-B/16. Prompts leave before the final
    norm and pooling, which the class token does not notice. The paper chooses the length per task.

    Several official commands have a dropout of 0.1. The official head starts with a bias of -log 99; here the head is
    the protocol's.
    """

    version: ClassVar[int] = 2
    identity_at_start: ClassVar[bool] = False

    prompt_length: Count = 10
    dropout: Rate = 0.0

    def adapt(self, anatomy: Anatomy) -> None:
        add_shallow_prompts(anatomy, self.prompt_length, self.dropout)


@METHODS.register("vpt_deep", family="additive", tracks=("image", "openvocab", "video"))
@dataclass
class VPTDeep(Method):
    """Learned prompt tokens at the input of every block (Jia et al. 2022, arXiv:2203.12119, equations 5-6).

    `prompt_length` tokens stand behind the class token, without position; each block's prompts replace the previous
    block's. They start uniform in ±sqrt(6 / (3·patch² + D)) (src/models/vit_prompt/vit.py), so an untrained model is
    not the bare backbone. L·p·D parameters: 9,216·p on ViT-B/16. Prompts leave before the final norm and pooling, which
    the class token does not notice. The paper chooses the length per task; the default is 10.
    """

    version: ClassVar[int] = 2
    identity_at_start: ClassVar[bool] = False

    prompt_length: Count = 10
    dropout: Rate = 0.0

    def adapt(self, anatomy: Anatomy) -> None:
        length, prefix, blocks = self.prompt_length, anatomy.prefix_tokens, anatomy.blocks
        bound = prompt_bound(anatomy)
        prompts = [
            UniformPrompts(block.width, length, prefix, bound, self.dropout, replaced=length if index else 0)
            for index, block in enumerate(blocks)
        ]
        add_prompts(anatomy, prompts, length)

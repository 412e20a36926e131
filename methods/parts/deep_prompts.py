"""Learned tokens in both towers, layer by layer: what IVLP, MaPLe and PromptSRC insert."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, TextTower
from .prompts import Prompts, add_prompts


class TextPrompts(Prompts):
    """Learned tokens in the place of the context, in a stream of texts (N, L, width); they start as N(0, 0.02).

    Args:
        start: tokens before the context.
    """

    def __init__(self, n_ctx: int, width: int, start: int) -> None:
        super().__init__(at=start, replaced=n_ctx)
        self.context = nn.Parameter(torch.empty(n_ctx, width).normal_(std=0.02))

    def learned(self) -> Tensor:
        return self.context


class ImagePrompts(Prompts):
    """`length` tokens that are parameters (length, D), at the end of a stream of images; they start as N(0, 0.02)."""

    def __init__(self, length: int, width: int, replaced: int) -> None:
        super().__init__(at=None, replaced=replaced)
        self.tokens = nn.Parameter(torch.empty(length, width).normal_(std=0.02))

    def learned(self) -> Tensor:
        return self.tokens


def add_text_prompts(text: TextTower, n_ctx: int, depth: int) -> list[TextPrompts]:
    """Prompts for the blocks 1 … depth-1 of the text tower, or as many as it has; block 0 reads the context.

    Raises:
        Unsupported: where the tower's blocks are not known.
    """
    added = []
    for block in text.blocks[1:depth]:
        added.append(TextPrompts(n_ctx, text.width, text.start))
        block.add_before(added[-1])
    return added


def add_independent_prompts(
    anatomy: Anatomy, n_ctx: int, prompt_length: int, text_depth: int, image_depth: int
) -> None:
    """Learned prompts for the first layers of each tower: `n_ctx` in the text's (but the first), else `prompt_length`.

    Args:
        image_depth: 0 leaves the image tower as it is.
    """
    add_text_prompts(anatomy.text_tower(), n_ctx, text_depth)
    width, length, layers = anatomy.width, prompt_length, len(anatomy.blocks[:image_depth])
    images = [ImagePrompts(length, width, replaced=length if layer else 0) for layer in range(layers)]
    if images:
        add_prompts(anatomy, images, length, before_first_norm=True)

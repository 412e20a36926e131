"""Learned tokens in both towers, layer by layer: what IVLP, MaPLe and PromptSRC insert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Insert, TextTower


class DeepInsert(Insert):
    """Base of these inserts: `without_prompts` can make a pass without them."""

    present = True

    def forward(self, x: Tensor) -> Tensor:
        """A stream (N, L, D)."""
        return self.change(x) if self.present else x

    def change(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class TextPrompts(DeepInsert):
    """Learned tokens in the place of the context, in a stream of texts (N, L, width); they start as N(0, 0.02).

    Args:
        start: tokens before the context.
    """

    def __init__(self, n_ctx: int, width: int, start: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.empty(n_ctx, width).normal_(std=0.02))
        self.start = start

    def change(self, x: Tensor) -> Tensor:
        context = self.context.expand(len(x), -1, -1)
        return torch.cat((x[:, : self.start], context, x[:, self.start + len(self.context) :]), dim=1)


class ImagePrompts(DeepInsert):
    """Tokens at the end of a stream of images (N, L, D).

    Args:
        replace: whether the stream already ends in as many prompts, which these take the place of.
    """

    def __init__(self, replace: bool) -> None:
        super().__init__()
        self.replace = replace

    def prompts(self) -> Tensor:
        """The tokens (prompt_length, D)."""
        raise NotImplementedError

    def change(self, x: Tensor) -> Tensor:
        prompts = self.prompts()
        rest = x[:, : -len(prompts)] if self.replace else x
        return torch.cat((rest, prompts.expand(len(x), -1, -1)), dim=1)


class LearnedImagePrompts(ImagePrompts):
    """`ImagePrompts` that are parameters (prompt_length, D); they start as N(0, 0.02)."""

    def __init__(self, prompt_length: int, width: int, replace: bool) -> None:
        super().__init__(replace)
        self.tokens = nn.Parameter(torch.empty(prompt_length, width).normal_(std=0.02))

    def prompts(self) -> Tensor:
        return self.tokens


class DropImagePrompts(DeepInsert):
    """Takes the last `length` tokens out again, so that any read-out sees the backbone's own tokens."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def change(self, x: Tensor) -> Tensor:
        return x[:, : -self.length]


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


def add_image_prompts(anatomy: Anatomy, prompts: Sequence[ImagePrompts], length: int) -> None:
    """Put `length` prompts behind the tokens, positions added, and others in their place before each further block.

    The prompts leave before the final norm and pooling. One or more `prompts`, not more than there are blocks.

    Raises:
        Unsupported: where the backbone has no place for them.
    """
    anatomy.add_before_blocks(prompts[0])
    for block, insert in zip(anatomy.blocks[1:], prompts[1:], strict=False):
        block.add_before(insert)
    anatomy.add_after_blocks(DropImagePrompts(length))


def add_independent_prompts(anatomy: Anatomy, n_ctx: int, prompt_length: int, depth: int) -> None:
    """Learned prompts for `depth` layers of each tower: `n_ctx` in the text's (but the first), else `prompt_length`."""
    add_text_prompts(anatomy.text_tower(), n_ctx, depth)
    width, layers = anatomy.width, len(anatomy.blocks[:depth])
    images = [LearnedImagePrompts(prompt_length, width, replace=layer > 0) for layer in range(layers)]
    add_image_prompts(anatomy, images, prompt_length)


@contextmanager
def without_prompts(model: nn.Module) -> Iterator[None]:
    """Within, the towers compute what they do without these inserts; written prompts then give bare text features."""
    inserts = [module for module in model.modules() if isinstance(module, DeepInsert)]
    for insert in inserts:
        insert.present = False
    try:
        yield
    finally:
        for insert in inserts:
            insert.present = True

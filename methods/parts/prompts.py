"""Tokens that a method puts into a stream, and takes out of it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Insert


def around(x: Tensor, at: int | None, length: int) -> tuple[Tensor, Tensor]:
    """What stands before, and what behind, `length` tokens of a stream (N, L, D), from token `at` on or at the end."""
    start = x.shape[1] - length if at is None else at
    return x[:, :start], x[:, start + length :]


class Prompts(Insert):
    """Puts tokens into a stream (N, L, D); `learned` says which.

    Args:
        at: how many tokens stand before them; None puts them at the end.
        replaced: how many tokens there they take the place of.
        dropout: of their entries, other ones for each image.

    Attributes:
        present: whether they are put in; if not, the stream stays as it is.
    """

    present = True

    def __init__(self, at: int | None, replaced: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.at = at
        self.replaced = replaced
        self.dropout = nn.Dropout(dropout)

    def learned(self) -> Tensor:
        """The tokens (p, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if not self.present:
            return x
        prompts = self.dropout(self.learned().expand(len(x), -1, -1))  # a mask for each image
        before, behind = around(x, self.at, self.replaced)
        return torch.cat((before, prompts, behind), dim=1)


class DropPrompts(Insert):
    """Takes `length` tokens out of a stream (N, L, D) again, so that any read-out sees the backbone's own tokens.

    Args:
        at: how many tokens stand before them; None where they are the last.

    Attributes:
        present: whether they are there to be taken out.
    """

    present = True

    def __init__(self, length: int, at: int | None) -> None:
        super().__init__()
        self.length = length
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        if not self.present:
            return x
        before, behind = around(x, self.at, self.length)
        return torch.cat((before, behind), dim=1) if behind.shape[1] else before


def add_prompts(
    anatomy: Anatomy, prompts: Sequence[Prompts | None], length: int, before_first_norm: bool = False
) -> None:
    """Put prompts before the first blocks, one after the other; `length` leave before the final norm and pooling.

    Args:
        prompts: the first puts them in, others stand in their place from their block on; None leaves them as they are.
            Not more than there are blocks.
        before_first_norm: whether the first puts them in as soon as positions are added, before a norm in front of the
            blocks.

    Raises:
        Unsupported: where the backbone has no place for them.
    """
    for index, (block, insert) in enumerate(zip(anatomy.blocks, prompts, strict=False)):
        if insert is not None:
            place = anatomy.add_before_blocks if before_first_norm and index == 0 else block.add_before
            place(insert)
    at = next(insert.at for insert in prompts if insert is not None)
    anatomy.add_after_blocks(DropPrompts(length, at))


@contextmanager
def without_prompts(model: nn.Module) -> Iterator[None]:
    """Within, the towers compute what they do without these inserts; written prompts then give bare text features."""
    inserts = [module for module in model.modules() if isinstance(module, Prompts | DropPrompts) and module.present]
    for insert in inserts:
        insert.present = False
    try:
        yield
    finally:
        for insert in inserts:
            insert.present = True

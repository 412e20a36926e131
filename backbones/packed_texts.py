"""Texts that begin alike, in few rows: what a causal text tower need not compute twice."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ROW = 512
"""Tokens that a row has room for, give or take one text: attention compares all tokens of a row."""


class PackedTexts(nn.Module):
    """C texts in R rows, ``[what all share | rest of a text | rest of the next | …]``.

    Under causal attention no token depends on what follows it. So what texts share at their beginning (a learned
    context, the words of a template) is encoded once a row, and padding not at all: a token sees what is shared and
    the tokens of its own text before it, at the positions that they have in that text. The features are those of the
    texts one by one, up to rounding.

    Args:
        ids: (C, L) token ids. lengths: (C,) tokens of each text, its end included.

    Attributes:
        index: (R, W) entries of the flattened (C·L) texts. positions: (R, W) of each token in its text.
        mask: (R, 1, W, W) to be added to attention's scores: 0 or minus infinity.
        ends: (C,) places of the texts' last tokens in the flattened (R·W) rows.
    """

    index: Tensor
    positions: Tensor
    mask: Tensor
    ends: Tensor

    def __init__(self, ids: Tensor, lengths: Tensor) -> None:
        super().__init__()
        sizes = lengths.tolist()
        alike = int((ids == ids[:1]).all(dim=0).int().cumprod(dim=0).sum())
        shared = min(alike, min(sizes) - 1)
        rows = _rows([size - shared for size in sizes], max(ROW - shared, 1))
        width = shared + max(sum(sizes[text] - shared for text in row) for row in rows)
        index, positions = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
        owner = torch.full((len(rows), width), -1)
        ends = torch.zeros(len(sizes), dtype=torch.long)
        for row, texts in enumerate(rows):
            place = torch.arange(shared)
            index[row, :shared] = texts[0] * ids.shape[1] + place
            positions[row, :shared] = place.float()
            at = shared
            for text in texts:
                place = torch.arange(shared, sizes[text])
                here = slice(at, at + len(place))
                index[row, here] = text * ids.shape[1] + place
                positions[row, here] = place.float()
                owner[row, here] = text
                at += len(place)
                ends[text] = row * width + at - 1
        common = torch.arange(width) < shared
        own = (owner[:, :, None] == owner[:, None, :]) & (owner[:, None, :] >= 0)
        seen = (common | own) & (positions[:, None, :] <= positions[:, :, None])
        seen |= torch.eye(width, dtype=torch.bool)  # padding sees itself: a row of nothing has no softmax
        mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
        for name, value in (("index", index), ("positions", positions.long()), ("mask", mask[:, None]), ("ends", ends)):
            self.register_buffer(name, value.to(ids.device), persistent=False)

    def take(self, texts: Tensor) -> Tensor:
        """Something of every token (C, L, …) -> the same of the rows' (R, W, …)."""
        return texts.flatten(0, 1)[self.index]

    def last(self, rows: Tensor) -> Tensor:
        """Something of the rows' tokens (…, R, W, D) -> that of the texts' last (…, C, D)."""
        return rows.flatten(-3, -2)[..., self.ends, :]


def _rows(sizes: list[int], room: int) -> list[list[int]]:
    """Texts, in their order, in about as few rows of `room` tokens as there must be, equally filled."""
    rows: list[list[int]] = [[]]
    used, fill = 0, sum(sizes) / math.ceil(sum(sizes) / room)
    for text, size in enumerate(sizes):
        if rows[-1] and used + size / 2 > fill:
            rows.append([])
            used = 0
        rows[-1].append(text)
        used += size
    return rows

"""Texts that begin alike, in few rows: what a causal text tower need not compute twice."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ROW = 128
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
        places: (C, L) places there of all tokens of a text, as many as the longest has; behind a shorter one, its end.
        beyond: (C, 1, 1, L) to be added to an end's scores: minus infinity behind a text.
    """

    index: Tensor
    positions: Tensor
    mask: Tensor
    ends: Tensor
    places: Tensor
    beyond: Tensor

    def __init__(self, ids: Tensor, lengths: Tensor) -> None:
        super().__init__()
        sizes = lengths.tolist()
        alike = int((ids == ids[:1]).all(dim=0).int().cumprod(dim=0).sum())
        shared = min(alike, min(sizes) - 1)
        rows = _rows([size - shared for size in sizes], max(ROW - shared, 1))
        width = shared + max(sum(sizes[text] - shared for text in row) for row in rows)
        index, positions = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
        owner = torch.full((len(rows), width), -1)
        places = torch.zeros(len(sizes), max(sizes), dtype=torch.long)
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
                place = torch.arange(max(sizes))
                place = torch.where(place < shared, place, place + here.start - shared).clamp(max=at - 1)
                places[text] = row * width + place
        common = torch.arange(width) < shared
        own = (owner[:, :, None] == owner[:, None, :]) & (owner[:, None, :] >= 0)
        seen = (common | own) & (positions[:, None, :] <= positions[:, :, None])
        seen |= torch.eye(width, dtype=torch.bool)  # padding sees itself: a row of nothing has no softmax
        mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
        behind = torch.arange(places.shape[1]) >= lengths.cpu()[:, None]
        beyond = torch.zeros(behind.shape).masked_fill(behind, float("-inf"))
        for name, value in (
            ("index", index),
            ("positions", positions.long()),
            ("mask", mask[:, None]),
            ("ends", places[:, -1]),
            ("places", places),
            ("beyond", beyond[:, None, None]),
        ):
            self.register_buffer(name, value.to(ids.device), persistent=False)

    def take(self, texts: Tensor) -> Tensor:
        """Something of every token (C, L, …) -> the same of the rows' (R, W, …)."""
        return texts.flatten(0, 1)[self.index]

    def last(self, rows: Tensor) -> Tensor:
        """Something of the tokens of N times all rows (N·R, W, D) -> that of the texts' last (N, C, D)."""
        return self._at(self.ends, rows)

    def of_each(self, rows: Tensor) -> Tensor:
        """The same of all tokens of each text (N, C, L, D), as `places` has them."""
        return self._at(self.places, rows)

    def _at(self, places: Tensor, rows: Tensor) -> Tensor:
        every = rows.view(-1, self.index.numel(), rows.shape[-1])
        # not every[:, places]: its backward pass sorts the places
        return every.index_select(1, places.flatten()).unflatten(1, places.shape)


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

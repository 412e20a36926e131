"""Texts that begin alike, as one sequence: what a causal text tower need not compute twice."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROW = 64
"""Tokens that a row has room for, give or take one text: attention compares all tokens of a row."""


class PackedTexts(nn.Module):
    """C texts as T tokens, ``[what all share | row | row | …]``; a row holds what remains of a few texts.

    Under causal attention no token depends on what follows it. So what texts share at their beginning (a learned
    context, the words of a template) is encoded once, and padding hardly at all: a token sees what is shared and the
    tokens of its own text before it, at the positions that they have in that text. The features are those of the
    texts one by one, up to rounding; with a dropout, texts would have its mask in common, so that a tower takes them
    apart again (`spread`).

    Args:
        ids: (C, L) token ids. lengths: (C,) tokens of each text, its end included.

    Attributes:
        ids: (C, L') the same, L' being the length of the longest text.
        shared: S, how many tokens all texts begin with. rows: R, of W tokens each: T = S + R·W.
        index: (T,) entries of the flattened (C·L) texts. positions: (T,) of each token in its text.
        mask: (R, 1, W, S + W) to be added to the scores of a row's tokens with what they may see: 0 or minus infinity.
        ends: (C,) places of the texts' last tokens.
        row_ends: (R·E,) the same row by row; rows with less than E texts repeat one.
        ends_mask: (R, 1, E, S + W), their part of the mask.
        order: (C,) places in `row_ends`, so that ``row_ends[order] == ends``.
        places: (C, L') of each text's tokens; behind its end, that of its last one.
    """

    ids: Tensor
    index: Tensor
    positions: Tensor
    mask: Tensor
    ends: Tensor
    row_ends: Tensor
    ends_mask: Tensor
    order: Tensor
    places: Tensor

    def __init__(self, ids: Tensor, lengths: Tensor) -> None:
        super().__init__()
        sizes = lengths.tolist()
        alike = int((ids == ids[:1]).all(dim=0).int().cumprod(dim=0).sum())
        self.shared = shared = min(alike, min(sizes) - 1)
        rows = _rows([size - shared for size in sizes])
        self.rows = len(rows)
        width = max(sum(sizes[text] - shared for text in row) for row in rows)
        index, positions = torch.zeros(self.rows, width, dtype=torch.long), torch.zeros(self.rows, width)
        owner = torch.full((self.rows, width), -1)
        order = torch.zeros(len(sizes), dtype=torch.long)
        row_ends = torch.zeros(self.rows, max(map(len, rows)), dtype=torch.long)
        places = torch.arange(max(sizes)).repeat(len(sizes), 1)
        for row, texts in enumerate(rows):
            at = 0
            for number, text in enumerate(texts):
                place = torch.arange(shared, sizes[text])
                here = slice(at, at + len(place))
                index[row, here] = text * ids.shape[1] + place
                positions[row, here] = place.float()
                owner[row, here] = text
                places[text, shared:] = (shared + row * width + at + torch.arange(max(sizes) - shared)).clamp(
                    max=shared + row * width + at + len(place) - 1
                )
                at += len(place)
                row_ends[row, number] = at - 1
                order[text] = row * row_ends.shape[1] + number
        own = (owner[:, :, None] == owner[:, None, :]) & (owner[:, None, :] >= 0)
        seen = own & (positions[:, None, :] <= positions[:, :, None])
        seen |= torch.eye(width, dtype=torch.bool)  # padding sees itself: without anything to see there is no softmax
        seen = torch.cat((torch.ones(self.rows, width, shared, dtype=torch.bool), seen), dim=2)
        mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
        common = torch.arange(shared)
        row_ends_mask = mask.gather(1, row_ends[:, :, None].expand(-1, -1, shared + width))
        row_ends += shared + width * torch.arange(self.rows)[:, None]
        for name, value in (
            ("ids", ids[:, : max(sizes)]),
            ("index", torch.cat((common, index.flatten()))),
            ("positions", torch.cat((common, positions.flatten().long()))),
            ("mask", mask[:, None]),
            ("ends", row_ends.flatten()[order]),
            ("row_ends", row_ends.flatten()),
            ("ends_mask", row_ends_mask[:, None]),
            ("order", order),
            ("places", places),
        ):
            self.register_buffer(name, value.to(ids.device), persistent=False)

    def take(self, texts: Tensor) -> Tensor:
        """Something of every token of the texts (C, L, …) -> of the packed ones (T, …)."""
        return texts.flatten(0, 1)[self.index]

    def spread(self, tokens: Tensor) -> Tensor:
        """Something of the tokens (N, T, D) -> that of every text's own (N, C, L', D); no text sees behind its end."""
        return tokens.index_select(1, self.places.flatten()).unflatten(1, self.places.shape)

    def last(self, tokens: Tensor) -> Tensor:
        """Something of the tokens (N, T, D) -> that of the texts' last (N, C, D)."""
        # not tokens[:, places]: its backward pass sorts the places
        return tokens.index_select(1, self.ends)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Attention of all tokens (N, T, D each) -> (N, T, D)."""
        first = [_heads(y[:, : self.shared], heads) for y in (q, k, v)]
        shared = F.scaled_dot_product_attention(first[0], first[1], first[2], is_causal=True).transpose(1, 2).flatten(2)
        return torch.cat((shared, self._attend(q[:, self.shared :], k, v, heads, self.mask)), dim=1)

    def attend_at_ends(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Attention of the tokens at `row_ends` (N, R·E, D) to all (N, T, D) -> what the texts' last read (N, C, D)."""
        return self._attend(q, k, v, heads, self.ends_mask).index_select(1, self.order)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor) -> Tensor:
        """Attention of as many tokens of each row (N, R·…, D) to what is shared and the row -> (N, R·…, D)."""
        k, v = (self._seen(y, heads) for y in (k, v))
        read = F.scaled_dot_product_attention(self._by_row(q, heads), k, v, attn_mask=mask.to(q.dtype))
        return read.unflatten(1, (len(q), heads)).permute(1, 0, 3, 2, 4).flatten(1, 2).flatten(2)

    def _seen(self, y: Tensor, heads: int) -> Tensor:
        """Of all tokens (N, T, D) -> of those that a row sees (R, N·heads, S + W, d)."""
        shared = _heads(y[:, : self.shared], heads).flatten(0, 1).expand(self.rows, -1, -1, -1)
        return torch.cat((shared, self._by_row(y[:, self.shared :], heads)), dim=2)

    def _by_row(self, y: Tensor, heads: int) -> Tensor:
        """(N, R·W, D) -> (R, N·heads, W, d): a mask is for all images and heads alike."""
        return y.view(len(y), self.rows, -1, heads, y.shape[-1] // heads).permute(1, 0, 3, 2, 4).flatten(1, 2)


def _heads(y: Tensor, heads: int) -> Tensor:
    """(N, L, D) -> (N, heads, L, d)."""
    return y.unflatten(2, (heads, -1)).transpose(1, 2)


def _rows(sizes: list[int]) -> list[list[int]]:
    """Texts in as few rows of `ROW` tokens as there must be, equally filled: each, by size, where most room is left."""
    rows: list[list[int]] = [[] for _ in range(math.ceil(sum(sizes) / max(ROW, *sizes)))]
    fill = [0] * len(rows)
    for text in sorted(range(len(sizes)), key=lambda text: -sizes[text]):
        row = fill.index(min(fill))
        rows[row].append(text)
        fill[row] += sizes[text]
    return rows

"""Learned context words in front of class names: what CoOp and its descendants train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...backbones import PackedTexts, PromptInsert, TextTower
from ...errors import Unsupported

Position = Literal["end", "middle", "front"]


class ContextPrompt(PromptInsert):
    """``[SOS | context | class name . EOT | padding]`` with a learned context (n_ctx, width).

    Args:
        text: the tower that will encode the prompts.
        context: initial vectors (n_ctx, width), or their number if they are drawn from N(0, 0.02).
        position: where the class name stands: at the end of the context, in its middle, or in front of it.
        class_specific: one context a class, (C, n_ctx, width), made when the class names are first known.
        words: in front of the class names; the context stands for their first n_ctx tokens, the others stay frozen. By
            default there are no others.
        unnamed: how many vectors of the context stand in front of these words, for none of them.
    """

    ids: Tensor
    prefix: Tensor
    suffix: Tensor

    def __init__(
        self,
        text: TextTower,
        context: Tensor | int,
        position: Position = "end",
        class_specific: bool = False,
        words: str = "",
        unnamed: int = 0,
    ) -> None:
        super().__init__()
        self.position = position
        self.class_specific = class_specific
        self.n_ctx = context if isinstance(context, int) else len(context)
        self.width = text.width
        unnamed = unnamed if words else self.n_ctx
        self.words = " ".join([*["X"] * unnamed, words]).rstrip()
        self.front = unnamed + (len(embedded_words(text, words)) if words else 0)
        self.context: nn.Parameter | None = None
        self.packed: PackedTexts | None = None
        if isinstance(context, Tensor):
            self.context = nn.Parameter(context.detach().clone())
        elif not class_specific:
            self.context = nn.Parameter(torch.empty(self.n_ctx, self.width).normal_(std=0.02))
        for name in ("ids", "prefix", "suffix"):
            self.register_buffer(name, torch.empty(0), persistent=False)  # of the class names, not of the training

    def set_class_names(self, text: TextTower, class_names: Sequence[str]) -> None:
        names = [name.replace("_", " ") for name in class_names]
        device = next(text.root.parameters()).device
        if self.context is None:
            self.context = nn.Parameter(
                torch.empty(len(names), self.n_ctx, self.width, device=device).normal_(std=0.02)
            )
        if self.context.dim() == 3 and len(self.context) != len(names):
            raise Unsupported(
                f"class-specific contexts were learned for {len(self.context)} classes and cannot serve {len(names)}: "
                f"use class_specific=False"
            )
        self.ids = text.trim(text.tokenize([f"{self.words} {name}." for name in names])).to(device)
        lengths = text.lengths(text.tokenize([f"{name}." for name in names]))
        longest = int(lengths.max())
        if longest + self.front > text.context_length:
            raise Unsupported(
                f"a context of {self.front} tokens leaves no room for the longest class name: the text tower reads "
                f"{text.context_length} tokens, so method.n_ctx (or method.init_words) may have at most "
                f"{text.context_length - longest}"
            )
        if not torch.equal(text.lengths(self.ids), (lengths + self.front).to(device)):
            raise Unsupported(
                "the text tower's tokenizer reads no single token in the letter X, which stands for a context"
            )
        with torch.no_grad():
            embedded = text.embed(self.ids)
        self.packed = text.pack(self.ids) if self.position == "end" and self.context.dim() == 2 else None
        if self.packed is not None:
            embedded = self.packed.take(embedded)  # all begin with the context
        self.prefix, self.suffix = embedded[..., : text.start, :], embedded[..., text.start + self.n_ctx :, :]
        # tokens of a name alone: without start and end
        self.name_lengths = [length - text.start - 1 for length in text.lengths(text.tokenize(names)).tolist()]

    def forward(self, features: Tensor | None = None) -> tuple[Tensor, Tensor | PackedTexts]:
        assert self.context is not None
        if self.packed is not None:
            return torch.cat((self.prefix, self.context, self.suffix)), self.packed
        context = self.context if self.context.dim() == 3 else self.context.expand(len(self.prefix), -1, -1)
        if self.position == "end":
            return torch.cat((self.prefix, context, self.suffix), dim=1), self.ids
        before = self.n_ctx // 2 if self.position == "middle" else 0
        prompts = [
            torch.cat((p, c[:before], s[:length], c[before:], s[length:]))
            for p, c, s, length in zip(self.prefix, context, self.suffix, self.name_lengths, strict=True)
        ]
        return torch.stack(prompts), self.ids


@torch.no_grad()
def embedded_words(text: TextTower, words: str) -> Tensor:
    """The token embeddings (number of tokens, width) of some words, without the start and end of a text."""
    ids = text.tokenize([words.replace("_", " ")])
    return text.embed(ids)[0, text.start : int(text.lengths(ids)[0]) - 1]


def opening(text: TextTower, words: str, n_ctx: int) -> tuple[Tensor | int, str]:
    """A context of the first `n_ctx` tokens of some words, and the words; where they have fewer: `n_ctx`, and none."""
    embedded = embedded_words(text, words) if words else torch.empty(0)
    return (embedded[:n_ctx], words) if len(embedded) >= n_ctx else (n_ctx, "")

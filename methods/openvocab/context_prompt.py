"""Learned context words in front of class names: what CoOp and its descendants train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...backbones import PromptInsert, TextTower
from ...errors import Unsupported

Position = Literal["end", "middle", "front"]


class ContextPrompt(PromptInsert):
    """``[SOS | context | class name . EOT | padding]`` with a learned context (n_ctx, width).

    Args:
        text: the tower that will encode the prompts.
        context: initial vectors (n_ctx, width), or their number if they are drawn from N(0, 0.02).
        position: where the class name stands: at the end of the context, in its middle, or in front of it.
        class_specific: one context a class, (C, n_ctx, width), made when the class names are first known.
    """

    ids: Tensor
    prefix: Tensor
    suffix: Tensor

    def __init__(self, text: TextTower, context: Tensor | int, position: Position, class_specific: bool) -> None:
        super().__init__()
        self.position = position
        self.class_specific = class_specific
        self.n_ctx = context if isinstance(context, int) else len(context)
        self.width = text.width
        self.context: nn.Parameter | None = None
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
        placeholder = " ".join(["X"] * self.n_ctx)
        self.ids = text.trim(text.tokenize([f"{placeholder} {name}." for name in names])).to(device)
        lengths = text.lengths(text.tokenize([f"{name}." for name in names]))
        longest = int(lengths.max())
        if longest + self.n_ctx > text.context_length:
            raise Unsupported(
                f"a context of {self.n_ctx} tokens leaves no room for the longest class name: the text tower reads "
                f"{text.context_length} tokens, set method.n_ctx to at most {text.context_length - longest}"
            )
        if not torch.equal(text.lengths(self.ids), (lengths + self.n_ctx).to(device)):
            raise Unsupported(
                "the text tower's tokenizer reads no single token in the letter X, which stands for a context"
            )
        with torch.no_grad():
            embedded = text.embed(self.ids)
        self.prefix, self.suffix = embedded[:, : text.start], embedded[:, text.start + self.n_ctx :]
        # tokens of a name alone: without start and end
        self.name_lengths = [length - text.start - 1 for length in text.lengths(text.tokenize(names)).tolist()]

    def forward(self, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert self.context is not None
        context = self.context if self.context.dim() == 3 else self.context.expand(len(self.ids), -1, -1)
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

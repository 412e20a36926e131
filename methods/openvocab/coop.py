"""CoOp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...backbones import Anatomy, PromptInsert, TextTower
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method

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
        self.ids = text.tokenize([f"{placeholder} {name}." for name in names]).to(device)
        longest = max(text.lengths(text.tokenize([f"{name}." for name in names])).tolist())
        if longest + self.n_ctx > text.context_length:
            raise Unsupported(
                f"a context of {self.n_ctx} tokens leaves no room for the longest class name: the text tower reads "
                f"{text.context_length} tokens, set method.n_ctx to at most {text.context_length - longest}"
            )
        with torch.no_grad():
            embedded = text.embed(self.ids)
        self.prefix, self.suffix = embedded[:, :1], embedded[:, 1 + self.n_ctx :]
        # tokens of a name alone: without start and end
        self.name_lengths = [length - 2 for length in text.lengths(text.tokenize(names)).tolist()]

    def forward(self) -> tuple[Tensor, Tensor]:
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


@METHODS.register("coop", family="openvocab", tracks=("open_vocabulary",))
@dataclass
class CoOp(Method):
    """Learned context words in front of the class name (Zhou et al. 2022, arXiv:2109.01134, equation 2).

    The context (n_ctx, width) starts as N(0, 0.02), or as the embeddings of `init_words` ("a photo of a", which then
    decide its length). 8,192 parameters on CLIP ViT-B/16 with n_ctx = 16, 2,048 with 4. Class names may change after
    training. With `init_words`, `class_specific` is ignored, as in the official code (trainers/coop.py).
    """

    identity_at_start: ClassVar[bool] = False

    n_ctx: int = 16
    init_words: str = ""
    class_token_position: Position = "end"
    class_specific: bool = False

    def __post_init__(self) -> None:
        if self.n_ctx < 1:
            raise ValueError("n_ctx must be at least 1")

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        context: Tensor | int = self.n_ctx
        if self.init_words:
            ids = text.tokenize([self.init_words.replace("_", " ")])
            with torch.no_grad():
                context = text.embed(ids)[0, 1 : int(text.lengths(ids)[0]) - 1]
        class_specific = self.class_specific and not self.init_words
        text.insert_prompt(ContextPrompt(text, context, self.class_token_position, class_specific))

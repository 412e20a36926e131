"""A learned context beside what written prompts say of the same classes: the teacher of KgCoOp, ProGrad, PromptSRC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backbones import TextTower
from .context_prompt import ContextPrompt


class TaughtPrompt(ContextPrompt):
    """A `ContextPrompt` that keeps the features of written prompts for its class names.

    Args:
        templates: of the written prompts. normalize_each: see `TextTower.ensemble`.
    """

    taught: Tensor

    def __init__(
        self,
        text: TextTower,
        context: Tensor | int,
        templates: Sequence[str],
        words: str = "",
        normalize_each: bool = True,
        unnamed: int = 0,
    ) -> None:
        super().__init__(text, context, words=words, unnamed=unnamed)
        self.templates = tuple(templates)
        self.normalize_each = normalize_each
        self.register_buffer("taught", torch.empty(0), persistent=False)  # of the class names, not of the training

    def set_class_names(self, text: TextTower, class_names: Sequence[str]) -> None:
        super().set_class_names(text, class_names)
        self.class_names = tuple(class_names)
        self.taught = torch.empty(0)

    @torch.inference_mode(False)  # what is kept of a prediction may be trained with
    @torch.no_grad()
    def teacher(self, text: TextTower) -> Tensor:
        """Normalised features (C, E) by the written prompts, as `text` is now; computed once for the class names."""
        if not len(self.taught):
            self.taught = text.ensemble(self.class_names, self.templates, self.normalize_each)
        return self.taught

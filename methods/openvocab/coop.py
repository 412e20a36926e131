"""CoOp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...backbones import TextTower
from ...registry import METHODS
from ..parts.context_prompt import ContextPrompt, Position
from ..parts.learned_context import WordsMethod
from ..ranges import Count


@METHODS.register("coop", family="openvocab", tracks=("openvocab",))
@dataclass
class CoOp(WordsMethod):
    """Learned context words in front of the class name (Zhou et al. 2022, arXiv:2109.01134, equation 2).

    The context (n_ctx, width) starts as N(0, 0.02), or as the embeddings of `init_words` ("a photo of a", which then
    decide its length). 8,192 parameters on CLIP ViT-B/16 with n_ctx = 16, 2,048 with 4. Class names may change after
    training. With `init_words`, `class_specific` is ignored, as in the official code (trainers/coop.py).
    """

    identity_at_start: ClassVar[bool] = False

    n_ctx: Count = 16
    init_words: str = ""
    class_token_position: Position = "end"
    class_specific: bool = False

    def prompt(self, text: TextTower) -> ContextPrompt:
        class_specific = self.class_specific and not self.init_words
        return ContextPrompt(text, self.context(text), self.class_token_position, class_specific)

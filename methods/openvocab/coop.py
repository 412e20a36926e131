"""CoOp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...backbones import Anatomy
from ...registry import METHODS
from ..method import Method
from ..parts.context_prompt import ContextPrompt, Position, embedded_words


@METHODS.register("coop", family="openvocab", tracks=("openvocab",))
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
        context = embedded_words(text, self.init_words) if self.init_words else self.n_ctx
        class_specific = self.class_specific and not self.init_words
        text.insert_prompt(ContextPrompt(text, context, self.class_token_position, class_specific))

"""CoCoOp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ...backbones import PackedTexts, TextTower
from ...registry import METHODS
from ..parts.context_prompt import ContextPrompt
from ..parts.learned_context import WordsMethod
from ..ranges import Count


class ConditionalPrompt(ContextPrompt):
    """A context that every image shifts: each of its tokens by ``meta(x)``, x being the image's feature.

    Args:
        hidden: width of the meta-net's hidden layer, between E and the text tower's width.
    """

    conditional: ClassVar[bool] = True

    def __init__(self, text: TextTower, context: Tensor | int, embed_dim: int, hidden: int) -> None:
        super().__init__(text, context)
        self.meta = nn.Sequential(nn.Linear(embed_dim, hidden), nn.ReLU(), nn.Linear(hidden, text.width))

    def forward(self, features: Tensor | None = None) -> tuple[Tensor, Tensor | PackedTexts]:
        """Normalised image features (N, E) -> embeddings (N, C, L, width), or (N, T, width) of packed texts."""
        assert features is not None
        embedded, ids = super().forward()
        shift = self.meta(features).view(len(features), *(1,) * (embedded.dim() - 1), -1)
        before = self.prefix.shape[-2]
        after = embedded.shape[-2] - before - self.n_ctx
        shift = shift.expand(*shift.shape[:-2], self.n_ctx, -1)
        return embedded + nn.functional.pad(shift, (0, 0, before, after)), ids


@METHODS.register("cocoop", family="openvocab", tracks=("openvocab",))
@dataclass
class CoCoOp(WordsMethod):
    """A context that depends on the image (Zhou et al. 2022, arXiv:2203.05557, section 3.2).

    To every context token is added ``π(x)``, a meta-net Linear(E, E / `reduction`) - ReLU - Linear(E / `reduction`,
    width) of the normalised image feature x (E,), so the text tower encodes all classes for every image: a step costs
    as many texts as images times classes. The context starts as the embeddings of `init_words` (which then decide its
    length) or as N(0, 0.02), the meta-net as torch's linear layers do, which already changes the function.
    35,360 parameters on CLIP ViT-B/16: 4 · 512 and 512 · 32 + 32 + 32 · 512 + 512.

    The official code encodes image by image (trainers/cocoop.py) and trains with a batch of one, for memory; here the
    texts of several images go through the tower at once, which changes no value (see
    `OpenVocabularyClassifier.text_features_for`).
    """

    identity_at_start: ClassVar[bool] = False

    reduction: Count = 16

    def prompt(self, text: TextTower) -> ContextPrompt:
        hidden = max(text.embed_dim // self.reduction, 1)
        return ConditionalPrompt(text, self.context(text), text.embed_dim, hidden)

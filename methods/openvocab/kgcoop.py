"""KgCoOp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ...backbones import TextTower
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Context
from ..parts.learned_context import WordsMethod, answer, learned, teacher
from ..parts.taught_prompt import TaughtPrompt
from ..ranges import NotNegative
from ..search_space import Dimension, LogUniform

if TYPE_CHECKING:
    from ...tasks import Targets


@METHODS.register("kgcoop", family="openvocab", tracks=("openvocab",))
@dataclass
class KgCoOp(WordsMethod):
    """CoOp whose class features are kept near the written prompts' (Yao et al. 2023, arXiv:2303.13283, section 3.2).

    The loss is cross-entropy plus `weight` times ``1 - mean over classes of cos(w_c, w'_c)``; w (C, E) are the features
    of the learned prompts and w' those of the task's templates. On the unit sphere that is half the squared distance of
    which the paper speaks; the official code uses the cosine (trainers/kgcoop.py), and its weight of 8 is for that.

    The context (n_ctx, width) starts as the embeddings of `init_words`, whatever the task's templates are: an untrained
    model is zero-shot classification with these words, and so the teacher only where they are the task's one template.
    Without `init_words` it starts as N(0, 0.02), `n_ctx` tokens long. 2,048 parameters on CLIP ViT-B/16, where "a photo
    of a" has 4 tokens.

    The official module also creates a meta-net, a bias and an adapter that nothing reads; they are not here.
    """

    looks_at_images: ClassVar[bool] = False

    weight: NotNegative = 8.0

    def search_space(self) -> Mapping[str, Dimension]:
        return {"weight": LogUniform(1.0, 16.0)}

    def prompt(self, text: TextTower) -> TaughtPrompt:
        return TaughtPrompt(text, self.context(text), text.templates)

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        texts, written = learned(model), teacher(model)
        distance = 1 - (texts * written).sum(dim=1).mean()
        return model.objective.loss(answer(model, images, texts).logits, targets) + self.weight * distance

"""KgCoOp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from torch import Tensor

from ...backbones import Anatomy
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..classifiers import OpenVocabularyClassifier
from ..method import Context, Method
from ..parts.context_prompt import embedded_words
from ..parts.taught_prompt import TaughtPrompt

if TYPE_CHECKING:
    from ...tasks import Targets


@METHODS.register("kgcoop", family="openvocab", tracks=("openvocab",))
@dataclass
class KgCoOp(Method):
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

    n_ctx: int = 4
    init_words: str = "a photo of a"
    weight: float = 8.0

    def __post_init__(self) -> None:
        if self.n_ctx < 1 or self.weight < 0:
            raise ValueError("n_ctx must be at least 1 and weight not negative")

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        context = embedded_words(text, self.init_words) if self.init_words else self.n_ctx
        text.insert_prompt(TaughtPrompt(text, context, text.templates))

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        model = cast(OpenVocabularyClassifier, model)
        learned = model.text_features()
        written = cast(TaughtPrompt, model.text.prompt).teacher(model.text)
        logits = model.text.logits(model.features(images) @ learned.T)
        return model.objective.loss(logits, targets) + self.weight * (1 - (learned * written).sum(dim=1).mean())

"""ProGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones import TextTower
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..classifiers import OpenVocabularyClassifier
from ..method import Context
from ..parts.context_prompt import embedded_words
from ..parts.learned_context import ContextMethod, compared, learned, teacher
from ..parts.taught_prompt import TaughtPrompt
from ..ranges import Count, NotNegative, Positive

if TYPE_CHECKING:
    from ...tasks import Targets


def aligned(gradient: Tensor, general: Tensor, weight: float = 1.0) -> Tensor:
    """A gradient without its part against `general`, of the same shape; as it is where the two agree.

    ``g - weight · (g · ĝ') ĝ'`` if ``g · g' < 0``, ĝ' being g' over its norm (all entries are one vector); else ``g``.
    """
    unit = F.normalize(general.flatten(), dim=0, eps=torch.finfo(general.dtype).tiny).view_as(general)
    return gradient - weight * (gradient * unit).sum().clamp(max=0) * unit


@METHODS.register("prograd", family="openvocab", tracks=("openvocab",))
@dataclass
class ProGrad(ContextMethod):
    """CoOp that never steps against what zero-shot predictions say (Zhu et al. 2023, arXiv:2205.14865, section 3.2).

    Two gradients of the context: g_ce of cross-entropy and g_kl of ``-mean over images of sum_c p'_c log p_c``, p' the
    zero-shot model's probabilities, both at `temperature`. Where they agree, g_ce trains; else its part against g_kl,
    times `weight` (the paper's λ), is taken away first (see `aligned`). Of g_kl only the direction counts, so the
    official code's factor T² has no effect and is not here. 8,192 parameters on CLIP ViT-B/16.

    The context (n_ctx, width) starts as zeros, at their end the words before the class name in the task's first
    template that has any (trainers/prograd.py of BeierZhu/Prompt-align). It has as many vectors for these as they are
    words: where some are two tokens, as a word and its comma, the context stands for the first of the tokens and the
    others stay frozen behind it, as there: of "a type of pet, a photo of a" that is the last "a". Of more words than
    `n_ctx`, which the official code refuses, the last count. The official templates put what is said behind a name in
    front ("a type of pet, a photo of a {}."); here they are the task's own. The zero-shot teacher is the mean over
    these.

    The official rule divides by the norm of g_kl, also where that is zero, and compares with the NaN that comes of it;
    here g_ce trains then, by rule.
    """

    version: ClassVar[int] = 2
    identity_at_start: ClassVar[bool] = False
    looks_at_images: ClassVar[bool] = False

    n_ctx: Count = 16
    temperature: Positive = 1.0
    weight: NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._general: dict[str, Tensor] = {}  # g_kl of the step, by parameter

    def prompt(self, text: TextTower) -> TaughtPrompt:
        before = (template.partition("{}")[0].replace("_", " ").split() for template in text.templates)
        words = next((part for part in before if part), [])[-self.n_ctx :]
        context, unnamed = torch.zeros(self.n_ctx, text.width), self.n_ctx
        if words:
            embedded = embedded_words(text, " ".join(words))[: len(words)]
            context, unnamed = context.to(embedded), self.n_ctx - len(embedded)
            context[unnamed:] = embedded
        return TaughtPrompt(text, context, text.templates, " ".join(words), unnamed=unnamed)

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        features = cast(OpenVocabularyClassifier, model).features(images)
        logits = compared(model, features, learned(model))
        with torch.no_grad():
            taught = compared(model, features, teacher(model))
        general = F.cross_entropy(logits / self.temperature, (taught / self.temperature).softmax(dim=1))
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        with torch.autocast(images.device.type, enabled=False):  # as every backward pass
            gradients = torch.autograd.grad(general, list(trained.values()), retain_graph=True)
        self._general = dict(zip(trained, gradients, strict=True))
        return model.objective.loss(logits, targets)

    def after_backward(self, model: AdaptedModel, context: Context) -> None:
        parameters = dict(model.named_parameters())
        for name, general in self._general.items():
            gradient = parameters[name].grad
            if gradient is not None:
                gradient.copy_(aligned(gradient, general, self.weight))
        self._general = {}

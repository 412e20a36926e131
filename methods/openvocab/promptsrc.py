"""PromptSRC: prompting with self-regulating constraints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones import Anatomy, TextTower
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Context
from ..parts.context_prompt import opening
from ..parts.deep_prompts import add_independent_prompts
from ..parts.imagenet_templates import IMAGENET_TEMPLATES
from ..parts.learned_context import DeepContextMethod, answer, learned, teacher
from ..parts.prompts import without_prompts
from ..parts.taught_prompt import TaughtPrompt
from ..ranges import Count, NotNegative, Positive

if TYPE_CHECKING:
    from ...tasks import Targets


def epoch_weights(epochs: int, mean: float, std: float) -> list[float]:
    """Weights that add up to one: a Gaussian over the epochs 1 … `epochs`, mean and std as shares of them."""
    exponents = [-0.5 * ((epoch - mean * epochs) / (std * epochs)) ** 2 for epoch in range(1, epochs + 1)]
    weights = [math.exp(exponent - max(exponents)) for exponent in exponents]
    return [weight / sum(weights) for weight in weights]


@METHODS.register("promptsrc", family="openvocab", tracks=("openvocab",))
@dataclass
class PromptSRC(DeepContextMethod):
    """IVLP's prompts, kept near the frozen model (Khattak et al. 2023, arXiv:2307.06948, section 3.2).

    The prompts are `ivlp`'s, with 4 and 4 tokens in 9 layers: 46,080 parameters on CLIP ViT-B/16. To cross-entropy
    are added, with features normalised and means over all their numbers (trainers/promptsrc.py),

    - `text_weight` · mean |w - w'|, w (C, E) the prompted class features, w' the frozen tower's, averaged over
      templates before they are normalised;
    - `image_weight` · mean |x - x'|, x (N, E) the prompted image features, x' the frozen tower's;
    - KL(p' ‖ p) summed over images and classes, divided by their number N · C (not by N), p' and p the predictions.

    The prompts of the final model are the average over those after each epoch, with Gaussian weights:
    `gpa_mean` and `gpa_std` are shares of the epochs, so that they mean the same under every protocol. The default is
    the paper's 15 and 1 of 20 epochs; its cross-dataset setting is 6 and 10 of 20, its few-shot settings 30 and 30, or
    45 and 5, of 50. Only the prompts are averaged: the official code does so with the whole model in half precision,
    frozen weights too, whose sum of rounded shares is not what they were.

    `teacher_templates`: CLIP's sixty for ImageNet, as officially for every data set, or the task's own.
    """

    looks_at_images: ClassVar[bool] = False

    prompt_length: Count = 4
    text_weight: NotNegative = 25.0
    image_weight: NotNegative = 10.0
    gpa_mean: float = 0.75
    gpa_std: Positive = 0.05
    teacher_templates: Literal["imagenet", "task"] = "imagenet"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._average: dict[str, Tensor] = {}  # of the epochs so far, by parameter

    def prompt(self, text: TextTower) -> TaughtPrompt:
        context, words = opening(text, self.init_words, self.n_ctx)
        templates = IMAGENET_TEMPLATES if self.teacher_templates == "imagenet" else text.templates
        return TaughtPrompt(text, context, templates, words, normalize_each=False)

    def adapt(self, anatomy: Anatomy) -> None:
        super().adapt(anatomy)
        add_independent_prompts(anatomy, self.n_ctx, self.prompt_length, self.depth, self.depth)

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        with torch.no_grad(), without_prompts(model):
            frozen = answer(model, images, teacher(model))
        prompted = answer(model, images, learned(model))
        divergence = F.kl_div(
            prompted.logits.log_softmax(dim=1), frozen.logits.log_softmax(dim=1), reduction="sum", log_target=True
        )
        return (
            model.objective.loss(prompted.logits, targets)
            + self.text_weight * F.l1_loss(prompted.texts, frozen.texts)
            + self.image_weight * F.l1_loss(prompted.images, frozen.images)
            + divergence / prompted.logits.numel()
        )

    @torch.no_grad()
    def after_step(self, model: AdaptedModel, context: Context) -> None:
        """Add the epoch's prompts to the average when it ends; take the average when the last one does."""
        epoch, rest = divmod(context.step, context.steps_per_epoch)
        if rest:
            return
        weight = epoch_weights(context.epochs, self.gpa_mean, self.gpa_std)[epoch - 1]
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if epoch == 1:
            self._average = {name: torch.zeros_like(parameter) for name, parameter in trained.items()}
        for name, parameter in trained.items():
            self._average[name].add_(parameter, alpha=weight)
        if epoch == context.epochs:
            for name, parameter in trained.items():
                parameter.copy_(self._average[name])
            self._average = {}

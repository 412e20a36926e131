"""Test-time prompt tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from torch import Tensor

from ...backbones import Anatomy
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..classifiers import OpenVocabularyClassifier
from ..method import Method, Phase, Views
from ..parts.context_prompt import ContextPrompt, embedded_words
from ..ranges import NOT_EMPTY, Count, Natural, Share


@METHODS.register("tpt", family="openvocab", tracks=("openvocab",))
@dataclass
class TPT(Method):
    """Context words tuned on each test image alone, without labels (Shu et al. 2022, arXiv:2209.07511, equations 2-4).

    Of `views` of the image (itself and random crops) the share `selected` whose predictions have the lowest entropy is
    kept, chosen once; `steps` of AdamW lower the entropy of their mean probabilities by changing the context, and the
    image itself is classified. Then context and optimizer are what they were: the next image starts anew, and images
    never meet. The context starts as the embeddings of `init_words`, so that an untuned model is the zero-shot
    classifier with the template "a photo of a {}."; 2,048 parameters on CLIP ViT-B/16, none of them trained before the
    test. `augmix` mixes chains of distortions into the crops, which the official script does on fine-grained sets and
    not on ImageNet and its variants, whose ids are one letter (``augmix=len(set_id)>1``, tpt_classification.py).
    """

    views: Count = 64
    selected: Share = 0.1
    steps: Natural = 1
    learning_rate: float = 5e-3
    init_words: Annotated[str, NOT_EMPTY] = "a photo of a"
    augmix: bool = False

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        context = embedded_words(text, self.init_words)
        text.insert_prompt(ContextPrompt(text, context, position="end", class_specific=False))

    def phases(self) -> Sequence[Phase]:
        return (Phase("test time", epochs=0),)

    def test_views(self) -> Views | None:
        return Views(self.views, augmix=self.augmix)

    def predict(self, model: AdaptedModel, images: Tensor) -> Tensor:
        """Views (N, V, 3, H, W), the image itself first, -> logits (N, C) of the images themselves."""
        classifier = cast(OpenVocabularyClassifier, model)
        # inside the harness's inference mode, which has no gradients
        with torch.inference_mode(False):
            with torch.no_grad():
                features = classifier.features(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            return torch.stack([self._predict_one(classifier, views) for views in features])

    def _predict_one(self, classifier: OpenVocabularyClassifier, features: Tensor) -> Tensor:
        """Features (V, E) of an image's views -> logits (C,) of the first."""
        prompt = cast(ContextPrompt, classifier.text.prompt)
        context = cast(torch.nn.Parameter, prompt.context)
        before = context.detach().clone()
        optimizer = torch.optim.AdamW([context], lr=self.learning_rate)
        try:
            chosen: Tensor | None = None
            for _ in range(self.steps):
                with torch.enable_grad():
                    logits = classifier.text.logits(features @ classifier.class_features().T)
                    if chosen is None:
                        chosen = self._confident(logits)
                    loss = entropy_of_mean(logits[chosen])
                    (context.grad,) = torch.autograd.grad(loss, [context])
                optimizer.step()
            with torch.no_grad():
                return classifier.text.logits(features[:1] @ classifier.class_features().T)[0]
        finally:
            context.data.copy_(before)
            context.grad = None

    def _confident(self, logits: Tensor) -> Tensor:
        """Indices of the views (V, C) with the lowest entropy."""
        log_p = logits.detach().log_softmax(dim=-1)
        entropy = -(log_p.exp() * log_p).sum(dim=-1)
        return entropy.argsort()[: max(int(len(logits) * self.selected), 1)]


def entropy_of_mean(logits: Tensor) -> Tensor:
    """Logits (V, C) -> the entropy of the mean of the V distributions (a scalar)."""
    log_p = torch.logsumexp(logits.log_softmax(dim=-1), dim=0) - torch.log(torch.tensor(float(len(logits))))
    return -(log_p.exp() * log_p).sum()

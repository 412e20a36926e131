"""Adapted models that classify by names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import Anatomy, PackedTexts
from ..errors import PeftmarkError
from .adapted_model import AdaptedModel
from .method import Method

if TYPE_CHECKING:
    from ..tasks import Objective

TEXTS_AT_ONCE = 1024
"""That are encoded where every image has texts of its own."""


class OpenVocabularyClassifier(AdaptedModel):
    """Images -> logits over class names: cosines of image and text features, by the model's own scale."""

    def __init__(self, anatomy: Anatomy, method: Method, objective: Objective) -> None:
        self.templates = objective.templates
        anatomy.text_tower().templates = self.templates
        super().__init__(anatomy, method, objective)
        self.text = anatomy.text_tower()
        self._text_features: Tensor | None = None
        self.set_class_names(objective.names or ())

    def head_parameters(self) -> Iterable[nn.Parameter]:
        return ()

    def set_class_names(self, class_names: Sequence[str]) -> None:
        """Classify into other classes from now on.

        Raises:
            PeftmarkError: on an empty list, an empty name or a name that stands there twice.
        """
        names = tuple(class_names)
        if not names or any(not name.strip() for name in names):
            raise PeftmarkError("class_names must be non-empty names")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PeftmarkError(f"class name {twice[0]!r} stands there twice: classes need different names")
        self.class_names = names
        self._text_features = None
        self.text.set_class_names(names)

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._text_features = None  # training changes them
        return super().train(mode)

    def restart(self) -> None:
        super().restart()
        self.set_class_names(self.class_names)

    def load_adapter_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_adapter_state_dict(state)
        self._text_features = None
        self.text.set_class_names(self.class_names)  # for inserts whose state by class has changed

    def text_features(self) -> Tensor:
        """Normalised features (C, E) of the classes, with gradients where these are recorded and reach the text side.

        Otherwise, while nothing can change them, they are kept.
        """
        if self.text.trainable and (self.training or torch.is_grad_enabled()):
            self._text_features = None
            return self.class_features()
        if self._text_features is None:
            with torch.inference_mode(False), torch.no_grad():  # what is kept may be trained with later
                self._text_features = self.class_features()
        return self._text_features

    def class_features(self) -> Tensor:
        """The same, computed anew: by the prompt, or over the templates where there is none."""
        prompt = self.text.prompt
        if prompt is None:
            return self.text.ensemble(self.class_names, self.templates)
        return F.normalize(self.text.encode(*prompt()), dim=-1)

    def text_features_for(self, features: Tensor) -> Tensor:
        """Normalised features (N, C, E) of the classes for each image's features (N, E): a conditional prompt's."""
        prompt, texts = self.text.prompt, []
        assert prompt is not None
        for part in features.split(max(TEXTS_AT_ONCE // len(self.class_names), 1)):
            embedded, ids = prompt(part)
            if isinstance(ids, PackedTexts):
                texts.append(self.text.encode(embedded, ids))
            else:
                encoded = self.text.encode(embedded.flatten(0, 1), ids.repeat(len(part), 1))
                texts.append(encoded.unflatten(0, embedded.shape[:2]))
        return F.normalize(torch.cat(texts), dim=-1)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> normalised embeddings (N, E) in the space shared with text."""
        return self.text.image_features(self.encode(images))

    def classify(self, features: Tensor) -> Tensor:
        """Normalised image features (N, E) -> logits (N, number of class names)."""
        prompt = self.text.prompt
        if prompt is not None and prompt.conditional:
            cosines = (self.text_features_for(features) @ features[:, :, None]).squeeze(2)
        else:
            cosines = features @ self.text_features().T
        return self.text.changed_logits(features, self.text.scaled(cosines))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, number of class names)."""
        return self.classify(self.features(images))

"""What methods that learn the words in front of class names have in common: CoOp and its descendants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

from torch import Tensor

from ...backbones import Anatomy, TextTower
from ..adapted_model import AdaptedModel
from ..classifiers import OpenVocabularyClassifier
from ..method import Method
from ..ranges import Count
from .context_prompt import ContextPrompt, embedded_words, opening
from .taught_prompt import TaughtPrompt


@dataclass
class ContextMethod(Method):
    """Base: a learned context of `n_ctx` vectors; `prompt` says what it is part of."""

    n_ctx: Count = 4

    def prompt(self, text: TextTower) -> ContextPrompt:
        """What makes the text tower's input from class names."""
        raise NotImplementedError

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        text.insert_prompt(self.prompt(text))


@dataclass
class WordsMethod(ContextMethod):
    """A context that starts as the embeddings of `init_words`, which then decide its length; or drawn, without them."""

    init_words: str = "a photo of a"

    def context(self, text: TextTower) -> Tensor | int:
        return embedded_words(text, self.init_words) if self.init_words else self.n_ctx


@dataclass
class DeepContextMethod(ContextMethod):
    """A context, and prompts in the first `depth` layers of both towers.

    It starts as the first `n_ctx` tokens of `init_words`, the other words stay; it is drawn where they have fewer.
    """

    identity_at_start: ClassVar[bool] = False

    depth: Count = 9
    init_words: str = "a photo of a"

    def prompt(self, text: TextTower) -> ContextPrompt:
        context, words = opening(text, self.init_words, self.n_ctx)
        return ContextPrompt(text, context, words=words)


class Answer(NamedTuple):
    """What a model says of a batch: normalised features of images (N, E) and of classes (C, E), and logits (N, C)."""

    images: Tensor
    texts: Tensor
    logits: Tensor


def answer(model: AdaptedModel, images: Tensor, texts: Tensor) -> Answer:
    """By these features of the classes: of the learned prompts (`learned`), or of written ones (`teacher`)."""
    features = cast(OpenVocabularyClassifier, model).features(images)
    return Answer(features, texts, compared(model, features, texts))


def compared(model: AdaptedModel, features: Tensor, texts: Tensor) -> Tensor:
    """The logits (N, C) of normalised features of images (N, E) and of classes (C, E)."""
    return cast(OpenVocabularyClassifier, model).text.logits(features @ texts.T)


def learned(model: AdaptedModel) -> Tensor:
    """Normalised features (C, E) of the classes by the learned prompts."""
    return cast(OpenVocabularyClassifier, model).text_features()


def teacher(model: AdaptedModel) -> Tensor:
    """Normalised features (C, E) of the classes by written prompts (see `TaughtPrompt`)."""
    text = cast(OpenVocabularyClassifier, model).text
    return cast(TaughtPrompt, text.prompt).teacher(text)

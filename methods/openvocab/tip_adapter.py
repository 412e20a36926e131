"""Tip-Adapter and Tip-Adapter-F."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, LogitInsert, TextTower
from ...errors import PeftmarkError
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..classifiers import OpenVocabularyClassifier
from ..method import Batches, Method, Phase, Views
from ..parts.logit_scale import add_logit_scale
from ..ranges import Count, Natural, Positive

SEARCH_START = 0.1
SearchEnd = Annotated[float, Meta(gt=SEARCH_START)]


class KeyValueCache(LogitInsert):
    """Adds ``alpha * exp(-beta * (1 - f K')) V`` to the logits (N, C) of features f (N, E); nothing until it is filled.

    Attributes:
        keys: K (M, E), normalised features of M training images; trained or a buffer.
        labels: (M,), of these images, by the class names of then. values: V (M, C), one-hot, by the names of now: a
            class that was not in training has a column of zeros.
        alpha, beta: numbers; searched for after training.
    """

    keys: Tensor
    labels: Tensor
    values: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, width: int, alpha: float, beta: float, trained: bool) -> None:
        super().__init__()
        keys, labels = torch.empty(0, width), torch.empty(0, dtype=torch.long)
        self.trained = trained
        self.cached_names: tuple[str, ...] = ()
        self.learned_buffers = ("labels", "alpha", "beta") if trained else ("keys", "labels", "alpha", "beta")
        if trained:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("labels", labels)
        self.register_buffer("values", torch.empty(0), persistent=False)  # of the class names, not of the training
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("beta", torch.tensor(beta))

    def fill(self, keys: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
        self.keys = nn.Parameter(keys) if self.trained else keys
        self.labels = labels
        self.cached_names = tuple(class_names)

    def set_class_names(self, text: TextTower, class_names: Sequence[str]) -> None:
        position = {name: index for index, name in enumerate(class_names)}
        columns = torch.tensor([position.get(name, len(position)) for name in self.cached_names], dtype=torch.long)
        if self.cached_names:
            one_hot = F.one_hot(columns.to(self.labels.device)[self.labels], len(position) + 1)
            self.values = one_hot[:, :-1].to(self.keys.dtype)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        if not self.cached_names:
            return logits
        affinity = features @ self.keys.T
        return logits + self.alpha * torch.exp(-self.beta * (1 - affinity)) @ self.values


@METHODS.register("tip_adapter", family="openvocab", tracks=("openvocab",))
@dataclass
class TipAdapter(Method):
    """A cache of the training images' features beside the zero-shot classifier (Zhang et al. 2022, arXiv:2207.09519).

    ``logits = s f W + alpha * exp(-beta (1 - f K')) V`` (equations 3-6): f (N, E) are normalised image features, W is
    the zero-shot classifier, s a scale, K (M, E) the features of the M training images, each the mean over
    `augmentations` random crops, normalised, and V their one-hot labels. Nothing is trained. A class that was not in
    training gets nothing from the cache.

    `alpha` and `beta` are the paper's 1 and 5.5 until a grid finds the pair with the best score on the validation
    split: of alpha and of beta as many values as `search` says, from 0.1 in equal steps up to, but without,
    `search_end`, as the official search_hp has them (utils.py; there beta stands first: ``search_scale: [7, 3]`` is a
    `search_end` of (3, 7), and DTD has (13, 13), EuroSAT (10, 12), FGVC-Aircraft (30, 30)). It tries 20 x 200 pairs,
    here by default 20 x 20, and on ImageNet on the test split, which is not repeated here. Here the pair of the
    beginning is tried, too, and wins ties.

    s is the model's own unless `logit_scale` says otherwise. The official code writes 100, to which CLIP's own has
    come.
    """

    version: ClassVar[int] = 2
    identity_at_start: ClassVar[bool] = False
    needs_batches: ClassVar[bool] = True
    trains_keys: ClassVar[bool] = False

    alpha: float = 1.0
    beta: float = 5.5
    augmentations: Count = 10
    search: tuple[Natural, Natural] = (20, 20)
    search_end: tuple[SearchEnd, SearchEnd] = (3.0, 7.0)
    logit_scale: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._chosen: dict[str, Any] = {}

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        add_logit_scale(text, self.logit_scale)
        text.add_after_logits(KeyValueCache(text.embed_dim, self.alpha, self.beta, self.trains_keys))

    def scoring_views(self) -> Views | None:
        return Views(self.augmentations + 1, scale=(0.5, 1.0))

    @torch.no_grad()
    def prepare(self, model: AdaptedModel, batches: Batches) -> None:
        classifier = cast(OpenVocabularyClassifier, model)
        training = model.training
        model.eval()  # as CLIP computes them
        keys, labels = [], []
        for images, batch_labels in batches:
            views = images[:, 1:] if images.dim() == 5 and images.shape[1] > 1 else images[:, None]
            features = model.encode(views.flatten(0, 1)).unflatten(0, views.shape[:2])
            keys.append(F.normalize(features.mean(dim=1), dim=-1))
            labels.append(cast(Tensor, batch_labels))
        model.train(training)
        if not keys:
            raise PeftmarkError("there are no training images to make a cache of")
        self._cache(model).fill(torch.cat(keys), torch.cat(labels), classifier.class_names)
        classifier.text.set_class_names(classifier.class_names)

    def phases(self) -> Sequence[Phase]:
        return (Phase("search", epochs=0),)

    def begin_phase(self, name: str, model: AdaptedModel, accuracy: Callable[[], float]) -> None:
        if name != "search":
            return
        cache = self._cache(model)
        best = accuracy(), self.alpha, self.beta
        alphas, betas = (
            [SEARCH_START + index * (end - SEARCH_START) / steps for index in range(steps)]
            for end, steps in zip(self.search_end, self.search, strict=True)
        )
        for beta, alpha in itertools.product(betas, alphas):
            cache.alpha.fill_(alpha)
            cache.beta.fill_(beta)
            if (reached := accuracy()) > best[0]:
                best = reached, alpha, beta
        cache.alpha.fill_(best[1])
        cache.beta.fill_(best[2])
        self._chosen = {"alpha": best[1], "beta": best[2]}

    def found(self) -> dict[str, Any]:
        return self._chosen

    def _cache(self, model: AdaptedModel) -> KeyValueCache:
        caches = (insertion.insert for insertion in model.anatomy.log)
        return next(insert for insert in caches if isinstance(insert, KeyValueCache))


@METHODS.register("tip_adapter_f", family="openvocab", tracks=("openvocab",))
@dataclass
class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained, starting as the images' features (Zhang et al. 2022, section 3.2).

    Values and towers stay frozen; keys are not normalised again. M·E parameters: shots · classes · 512 on CLIP
    ViT-B/16. `alpha` and `beta` are searched on the validation split after training, at its last epoch; the official
    script keeps the epoch that is best on the test split. It trains at a learning rate of 1e-3, here at the protocol's;
    `epsilon_of_adamw` is its own (main.py).
    """

    trains_keys: ClassVar[bool] = True

    epsilon_of_adamw: Positive = 1e-4

    def epsilon(self) -> float:
        return self.epsilon_of_adamw

    def phases(self) -> Sequence[Phase]:
        return (Phase("train"), Phase("search", epochs=0))

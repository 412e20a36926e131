"""One label an example, by a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..targets import Targets
from .objective import Metric, Objective

if TYPE_CHECKING:
    from ..task import Split


class Accuracy(Metric):
    """Percent of predicted labels that are the target."""

    name = "accuracy"

    def __init__(self) -> None:
        self.correct = self.seen = 0

    def update(self, predictions: Mapping[str, Tensor], targets: Targets) -> None:
        predicted = predictions["predicted"]
        self.correct += int((predicted == cast(Tensor, targets)).sum())
        self.seen += len(predicted)

    def value(self) -> float:
        return 100.0 * self.correct / self.seen


class Classification(Objective):
    """Which of `num_classes` classes: cross-entropy of the logits (N, num_classes); targets are int64 (N,)."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def head(self, width: int) -> nn.Module:
        return nn.Linear(width, self.num_classes)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        return F.cross_entropy(outputs, cast(Tensor, targets))

    def decode(self, outputs: Tensor, targets: Targets) -> dict[str, Tensor]:
        """``predicted`` and ``target`` (labels), ``probability_true`` and ``probability_max``, (N,) each."""
        labels = cast(Tensor, targets)
        probabilities = outputs.float().softmax(dim=-1)
        return {
            "predicted": outputs.argmax(dim=-1),
            "target": labels,
            "probability_true": probabilities.gather(1, labels[:, None]).squeeze(1),
            "probability_max": probabilities.amax(dim=-1),
        }

    def metric(self) -> Accuracy:
        return Accuracy()

    def made_up_targets(self, n: int) -> Tensor:
        return torch.arange(n) % self.num_classes

    def combine_views(self, outputs: Tensor) -> Tensor:
        """The logarithm of the views' mean probabilities."""
        return outputs.softmax(dim=-1).mean(dim=1).log()

    def chance(self, split: Split) -> float:
        return 100.0 / len(split.class_names)

    def caption(self, split: Split, index: int) -> str:
        return split.class_names[int(cast(Tensor, split.targets)[index])]

    def one_of_each(self, split: Split) -> list[int]:
        labels = cast(Tensor, split.targets)
        return [int((labels == label).nonzero()[0]) for label in labels.unique()]

    def facts(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}

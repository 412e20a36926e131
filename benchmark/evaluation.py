"""Evaluation: predictions on a split, accuracy in percent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods import AdaptedModel, OpenVocabularyClassifier
from ..results import VariantFigure
from ..tasks import Split, Task, TaskData
from .inputs import Inputs


@dataclass(frozen=True)
class Evaluator:
    """Measures a model, as it is when asked, on the splits of a task."""

    model: AdaptedModel
    task: Task
    data: TaskData
    inputs: Inputs
    """Of the splits as `named_splits` calls them."""

    def validation(self) -> float:
        """Accuracy on the validation split, in percent."""
        with self.inputs.entered():
            return accuracy(self._predict("validation", self.data.validation), self.data.validation)

    def tests(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Predicted labels and accuracy of every test split."""
        with self.inputs.entered():
            predictions = {name: self._predict(f"test/{name}", split) for name, split in self.data.tests.items()}
        return predictions, {name: accuracy(predictions[name], split) for name, split in self.data.tests.items()}

    def _predict(self, name: str, split: Split) -> Tensor:
        return predict(self.model, self.inputs.batches(name), split.class_names, self.inputs.autocast)

    def variants(self) -> list[VariantFigure]:
        """The figures of every model that the training gave; the last one selected stays."""
        figures = []
        for variant in self.model.method.variants():
            self.model.method.select(self.model, variant)
            validation, test = self.validation(), self.task.headline(self.tests()[1])
            figures.append(VariantFigure(axis=variant.axis, value=variant.value, validation=validation, test=test))
        return figures


def named_splits(data: TaskData) -> dict[str, Split]:
    return {"train": data.train, "validation": data.validation, **{f"test/{n}": s for n, s in data.tests.items()}}


@torch.inference_mode()
def predict(
    model: AdaptedModel,
    batches: Iterable[Tensor],
    class_names: tuple[str, ...],
    autocast: Callable[[], AbstractContextManager[object]],
) -> Tensor:
    """Predicted labels (N,) of batches of the model's inputs, on the CPU.

    Args:
        class_names: those that an open-vocabulary model is to choose from.
        autocast: what the model computes under.
    """
    model.eval()
    if isinstance(model, OpenVocabularyClassifier):
        model.set_class_names(class_names)
    predictions = []
    for inputs in batches:
        with autocast():
            predictions.append(model(inputs).argmax(dim=-1))
    return torch.cat(predictions).cpu()


def accuracy(predictions: Tensor, split: Split) -> float:
    """Percent of correct labels."""
    return 100.0 * int((predictions == split.labels).sum()) / len(split)


def predictions_sha256(predictions: Mapping[str, Tensor]) -> str:
    """Of the labels of all splits, by sorted name."""
    digest = hashlib.sha256()
    for name in sorted(predictions):
        digest.update(predictions[name].to(torch.int64).numpy().tobytes())
    return digest.hexdigest()

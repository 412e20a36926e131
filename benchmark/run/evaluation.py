"""Evaluation: predictions on a split, accuracy in percent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import Unsupported
from ...methods import AdaptedModel, OpenVocabularyClassifier
from ...results import VariantFigure
from ...tasks import Split, Task, TaskData
from .inputs import BOTH, VALIDATION, Inputs, named_test
from .memory_savings import autocast


@dataclass(frozen=True)
class Evaluator:
    """Measures a model, as it is when asked, on the splits of a task."""

    model: AdaptedModel
    task: Task
    data: TaskData
    inputs: Inputs
    precision: str

    @property
    def validates(self) -> bool:
        """Whether the validation split says something: not of a model that is trained on it."""
        return self.inputs.trained_on != BOTH

    def validation(self) -> float:
        """Accuracy on the validation split, in percent.

        Raises:
            Unsupported: where it is what the model is trained on.
        """
        if not self.validates:
            raise Unsupported(
                f"{type(self.model.method).__name__} chooses by validation accuracy when its training is over, and the "
                f"protocol trains on the validation images: --set protocol.final_training=train"
            )
        return accuracy(self._predict(VALIDATION, self.data.validation), self.data.validation)

    def tests(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Predicted labels and accuracy of every test split."""
        predictions = {name: self._predict(named_test(name), split) for name, split in self.data.tests.items()}
        return predictions, {name: accuracy(predictions[name], split) for name, split in self.data.tests.items()}

    def variants(self) -> list[VariantFigure]:
        """The figures of every model that the training gave; the last one selected stays."""
        figures = []
        for variant in self.model.method.variants():
            self.model.method.select(self.model, variant)
            validation = self.validation() if self.validates else None
            test = self.task.headline(self.tests()[1])
            figures.append(VariantFigure(axis=variant.axis, value=variant.value, validation=validation, test=test))
        return figures

    def _predict(self, name: str, split: Split) -> Tensor:
        start, batches = self.inputs.evaluation(name, self.precision)
        with self.model.start_from(start):
            return predict(self.model, batches, split.class_names, self.precision, split.multi_view)


@torch.inference_mode()
def predict(
    model: AdaptedModel,
    batches: Iterable[Tensor],
    class_names: Sequence[str],
    precision: str = "float32",
    multi_view: bool = False,
) -> Tensor:
    """Predicted labels (N,), on the CPU; an open-vocabulary model takes the class names.

    Args:
        multi_view: whether a batch holds several clips of each video (N, V, T, 3, H, W), whose probabilities are
            averaged.
    """
    model.eval()
    if isinstance(model, OpenVocabularyClassifier) and model.class_names != tuple(class_names):
        with torch.inference_mode(False):  # what is made of the names may be trained with, at test time too
            model.set_class_names(class_names)
    predictions = []
    for batch in batches:
        with autocast(precision, batch.device):
            if multi_view:
                logits = model.method.predict(model, batch.flatten(0, 1)).unflatten(0, batch.shape[:2])
                predictions.append(logits.softmax(dim=-1).mean(dim=1).argmax(dim=-1))
            else:
                predictions.append(model.method.predict(model, batch).argmax(dim=-1))
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

"""Evaluation: predictions on a split, accuracy in percent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods import AdaptedModel, OpenVocabularyClassifier
from ..results import VariantFigure
from ..tasks import Split, Task, TaskData
from .preprocess import Preprocess

BATCH_SIZE = 256
"""Images a batch; fixed, so that it cannot be a reason for two runs to differ."""


@dataclass(frozen=True)
class Evaluator:
    """Measures a model, as it is when asked, on the splits of a task."""

    model: AdaptedModel
    task: Task
    data: TaskData
    preprocess: Preprocess

    def validation(self) -> float:
        """Accuracy on the validation split, in percent."""
        return accuracy(predict(self.model, self.data.validation, self.preprocess), self.data.validation)

    def tests(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Predicted labels and accuracy of every test split."""
        predictions = {name: predict(self.model, split, self.preprocess) for name, split in self.data.tests.items()}
        return predictions, {name: accuracy(predictions[name], split) for name, split in self.data.tests.items()}

    def variants(self) -> list[VariantFigure]:
        """The figures of every model that the training gave; the last one selected stays."""
        figures = []
        for variant in self.model.method.variants():
            self.model.method.select(self.model, variant)
            validation, test = self.validation(), self.task.headline(self.tests()[1])
            figures.append(VariantFigure(axis=variant.axis, value=variant.value, validation=validation, test=test))
        return figures


@torch.inference_mode()
def predict(model: AdaptedModel, split: Split, preprocess: Preprocess) -> Tensor:
    """Predicted labels (N,) of a split, on the CPU; an open-vocabulary model takes the split's class names."""
    model.eval()
    if isinstance(model, OpenVocabularyClassifier):
        model.set_class_names(split.class_names)
    frames = 1 if split.images.dim() == 4 else split.images.shape[1]
    batches = split.images.split(max(BATCH_SIZE // frames, 1))
    return torch.cat([model(preprocess(images)).argmax(dim=-1) for images in batches]).cpu()


def accuracy(predictions: Tensor, split: Split) -> float:
    """Percent of correct labels."""
    return 100.0 * int((predictions == split.labels).sum()) / len(split)


def predictions_sha256(predictions: Mapping[str, Tensor]) -> str:
    """Of the labels of all splits, by sorted name."""
    digest = hashlib.sha256()
    for name in sorted(predictions):
        digest.update(predictions[name].to(torch.int64).numpy().tobytes())
    return digest.hexdigest()

"""Evaluation: predictions on a split, and the objective's metric of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import Unsupported
from ...methods import AdaptedModel
from ...results import VariantFigure
from ...tasks import Split, Targets, Task, TaskData
from .inputs import BOTH, VALIDATION, Inputs, named_test
from .memory_savings import autocast

Predictions = dict[str, Tensor]
"""What `Objective.decode` keeps of each example of a split, by name: (N, …) each, on the CPU."""


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
        """The metric's value on the validation split. Raises as `validate` does."""
        return self.validate()[1]

    def validate(self) -> tuple[Predictions, float]:
        """Predictions and the metric's value on the validation split.

        Raises:
            Unsupported: where it is what the model is trained on.
        """
        if not self.validates:
            raise Unsupported(
                f"{type(self.model.method).__name__} chooses by validation figures when its training is over, and the "
                f"protocol trains on the validation split: --set protocol.final_training=train"
            )
        return self._predict(VALIDATION, self.data.validation)

    def score(self) -> float:
        """How good the model is on the validation split: the metric, negated where a lower one is better."""
        value = self.validation()
        return value if self.model.objective.metric().higher_is_better else -value

    def tests(self) -> tuple[dict[str, Predictions], dict[str, float]]:
        """Predictions and the metric's value on every test split."""
        found = {name: self._predict(named_test(name), split) for name, split in self.data.tests.items()}
        return {name: each for name, (each, _) in found.items()}, {name: value for name, (_, value) in found.items()}

    def variants(self) -> list[VariantFigure]:
        """The figures of every model that the training gave; the last one selected stays."""
        figures = []
        for variant in self.model.method.variants():
            self.model.method.select(self.model, variant)
            validation = self.validation() if self.validates else None
            test = self.task.headline(self.tests()[1])
            figures.append(VariantFigure(axis=variant.axis, value=variant.value, validation=validation, test=test))
        return figures

    def _predict(self, name: str, split: Split) -> tuple[Predictions, float]:
        start, batches = self.inputs.evaluation(name, self.precision)
        with torch.inference_mode(False):  # what is made of a split's names may be trained with, at test time too
            self.model.objective.pose(self.model, split)
        targets = split.targets.to(self.inputs.device).split(self.inputs.batch_size(split))
        with self.model.start_from(start):
            return predict(self.model, zip(batches, targets, strict=True), self.precision, split.multi_view)


@torch.inference_mode()
def predict(
    model: AdaptedModel,
    batches: Iterable[tuple[Tensor, Targets]],
    precision: str = "float32",
    multi_view: bool = False,
) -> tuple[Predictions, float]:
    """Predictions of (inputs, targets) in batches, and the metric's value of them all.

    Args:
        multi_view: whether a batch holds several views of each example (N, V, …), whose outputs are combined.
    """
    model.eval()
    objective = model.objective
    metric, kept = objective.metric(), list[Predictions]()
    for inputs, targets in batches:
        with autocast(precision, inputs.device):
            if multi_view:
                outputs = model.method.predict(model, inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
                outputs = objective.combine_views(outputs)
            else:
                outputs = model.method.predict(model, inputs)
        decoded = {name: values.cpu() for name, values in objective.decode(outputs, targets).items()}
        metric.update(decoded, targets.to(torch.device("cpu")))
        kept.append(decoded)
    return {name: torch.cat([each[name] for each in kept]) for name in kept[0]}, metric.value()


def as_arrays(predictions: Predictions) -> dict[str, NDArray[Any]]:
    """The same for a file of predictions."""
    return {name: values.numpy() for name, values in predictions.items()}

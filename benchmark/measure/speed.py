"""Timing of training steps: compared steps take turns, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...methods import AdaptedModel, Context

Step = Callable[[], None]


class TrainingStep:
    """One whole step as `benchmark.training` does it: loss, backward, AdamW. Data are given, so none are loaded."""

    def __init__(self, model: AdaptedModel, images: Tensor, labels: Tensor, classes: int, precision: str = "float32"):
        self.model, self.images, self.labels = model, images, labels
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4) if self.trained else None
        self.context = Context(epochs=1, steps_per_epoch=1, class_names=tuple(map(str, range(classes))))
        self.autocast = precision == "bfloat16"

    def __call__(self) -> None:
        method = self.model.method
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.autocast):
            loss = method.loss(self.model, self.images, self.labels, self.context)
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            method.after_backward(self.model, self.context)
            self.model.optimizer_step(self.optimizer)
            method.after_step(self.model, self.context)


def take_turns(steps: Mapping[str, Step], warmup: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round; every round runs every step once, in order."""
    for _ in range(warmup):
        for step in steps.values():
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()  # a collection would fall on whichever step it meets
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return seconds


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of the ratios of two steps, round by round."""

    median: float
    low: float
    high: float


def ratio(seconds: list[float], reference: list[float]) -> Ratio:
    """
    >>> ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    Ratio(median=1.0, low=0.75, high=1.25)
    """
    low, median, high = torch.tensor(
        [a / b for a, b in zip(seconds, reference, strict=True)], dtype=torch.float64
    ).quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    return Ratio(round(median.item(), 4), round(low.item(), 4), round(high.item(), 4))

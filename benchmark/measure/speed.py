"""Timing of training steps: compared steps take turns, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...methods import AdaptedModel, Context

Step = Callable[[], None]


def training_step(model: AdaptedModel, images: Tensor, labels: Tensor) -> Step:
    """One whole step as `benchmark.training` does it: loss, backward, AdamW. Data are given, so none are loaded."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None
    names = tuple(map(str, range(int(labels.max()) + 1)))
    context = Context(epochs=1, steps_per_epoch=1, class_names=names)

    def step() -> None:
        loss = model.method.loss(model, images, labels, context)
        loss.item()
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            model.method.after_backward(model, context)
            model.optimizer_step(optimizer)
            model.method.after_step(model, context)

    return step


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


def step_flops(step: Step) -> int:
    """Floating-point operations of a step, two a multiply-add; of matrix products and convolutions alone.

    On a CPU torch gives its fused attention no operations, and elementwise work is never counted.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()

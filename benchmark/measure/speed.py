"""Timing of training steps: compared steps take turns, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...methods import AdaptedModel, Context
from ...results import InferenceSpeed, Speed, Timing
from ...tasks import Targets
from ..run.memory_savings import autocast
from ..run.step import TrainingStep, make_optimizer

Step = Callable[[], None]

EPOCH = 1000
"""Steps of an epoch that does not end while its steps are measured."""


RATE, DECAY = 1e-4, 0.01
"""Of a measured step: of no account for what it costs."""


class MeasuredStep:
    """The trainer's own step (`run.step`) on given data, so that none are loaded; and inference on them."""

    def __init__(
        self,
        model: AdaptedModel,
        images: Tensor,
        targets: Targets,
        classes: int,
        precision: str = "float32",
        gradient_checkpointing: bool = False,
        optimizer: str = "adamw",
    ) -> None:
        self.model, self.images, self.targets = model, images, targets
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        context = Context(epochs=1, steps_per_epoch=EPOCH, class_names=tuple(map(str, range(classes))))
        self.training = TrainingStep(
            model,
            make_optimizer(model, optimizer, RATE, DECAY),
            context,
            precision,
            gradient_checkpointing,
        )

    def __call__(self) -> None:
        self.training(self.images, self.targets)

    def infer(self) -> None:
        """Inference on the same images."""
        self.model.eval()
        with torch.no_grad(), autocast(self.training.precision, self.images.device):
            self.model(self.images)
        self.model.train()

    def of_one(self) -> MeasuredStep:
        """The same with one image."""
        one = copy.copy(self)
        one.images, one.targets = self.images[:1], self.targets[torch.zeros(1, dtype=torch.int64)]
        return one


def take_turns(
    steps: Mapping[str, Step], warmup: int, rounds: int, synchronize: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each step in each round; every round runs every step once, in order.

    Args:
        synchronize: waits for the device; called around each step.
    """
    for _ in range(warmup):
        for step in steps.values():
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()  # a collection would fall on whichever step it meets
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                synchronize()
                start = time.perf_counter()
                step()
                synchronize()
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


TURNS = {"cpu": (3, 12), "cuda": (10, 40)}
"""Warm-up and timed rounds, by device type."""


def measure_speed(step: MeasuredStep, full: MeasuredStep, bare: MeasuredStep, merged: MeasuredStep | None) -> Speed:
    """Times of training and inference, in rounds with those that they are compared with.

    Args:
        full, bare: of full fine-tuning, and of the backbone with nothing but a head.
        merged: of the model after `merge`, where it can be merged.
    """
    steps: dict[str, Step] = {"train": step, "full": full}
    for name, each in (("model", step), ("bare", bare), ("merged", merged)):
        if each is not None:
            steps[name] = each.infer
            steps[f"{name} of one"] = each.of_one().infer
    device = step.images.device.type
    warmup, rounds = TURNS[device]
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = take_turns(steps, warmup, rounds, synchronize)
    size = len(step.images)

    def inference(name: str) -> InferenceSpeed:
        return InferenceSpeed(
            images_per_s=round(1000 * size / timing(seconds[name]).median, 2),
            batch1_ms=timing(seconds[f"{name} of one"]),
        )

    train = timing(seconds["train"])
    return Speed(
        train_step_ms=train,
        train_images_per_s=round(1000 * size / train.median, 2),
        inference=inference("model"),
        merged=inference("merged") if merged is not None else None,
        warmup_steps=warmup,
        timed_steps=rounds,
        threads=torch.get_num_threads(),
        train_step_relative_to_full=ratio(seconds["train"], seconds["full"]).median,
        inference_relative_to_bare=ratio(seconds["model"], seconds["bare"]).median,
    )


def timing(seconds: list[float]) -> Timing:
    """
    >>> timing([0.002, 0.001, 0.003])
    Timing(median=2.0, q1=1.5, q3=2.5, samples=[2.0, 1.0, 3.0])
    """
    quartiles = torch.tensor(seconds, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    q1, median, q3 = (round(1000 * value, 4) for value in quartiles.tolist())
    return Timing(median=median, q1=q1, q3=q3, samples=[round(1000 * value, 4) for value in seconds])

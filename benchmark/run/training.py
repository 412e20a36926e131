"""Training under a protocol."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import torch
from torch import Tensor

from ...methods import AdaptedModel, Context, Phase
from ...results import PhaseCost
from ...tasks import Targets
from ..plan.protocol import Protocol
from .failures import Diverged
from .inputs import Inputs, Lazily
from .step import TrainingStep, make_optimizer

Curve = list[dict[str, float]]


@dataclass
class Trainer:
    """Carries out the phases of a method's training.

    Attributes:
        inputs: of the training split, with the targets.
        learning_rate: of the protocol, for this method; a phase may scale it.
        seed: decides the order of the data.
        validation: how good the model is on the validation split as it is; higher is better.
    """

    model: AdaptedModel
    inputs: Inputs
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    protocol: Protocol
    learning_rate: float
    seed: int
    validation: Callable[[], float]

    def train(self, phase: Phase, stop_below: Sequence[float | None] = ()) -> tuple[Curve, PhaseCost]:
        """Carry out one phase; an entry an epoch (see `train`) and what it took.

        Args:
            stop_below: after each epoch the validation split is measured, into the entry's ``validation_score`` (higher
                is better), and training ends where it is below this epoch's; None ends none. Empty measures nothing.
        """
        start, evaluations = time.perf_counter(), 0

        def score() -> float:
            nonlocal evaluations
            evaluations += 1
            return self.validation()

        self.model.method.begin_phase(phase.name, self.model, score)
        head_rate = self.protocol.head_learning_rate
        protocol = msgspec.structs.replace(
            self.protocol,
            epochs=round(self.protocol.epochs * phase.epochs),
            head_learning_rate=None if head_rate is None else head_rate * phase.learning_rate,
        )
        targets = self.inputs.targets
        steps = steps_per_epoch(len(targets), protocol)
        context = Context(protocol.epochs, steps, self.class_names, self.templates)
        rate = self.learning_rate * phase.learning_rate
        curve: Curve = []
        if protocol.epochs > 0 and any(parameter.requires_grad for parameter in self.model.parameters()):
            # asked now: the phases before, or the beginning of this one, may have changed what is untouched
            first, inputs = self.inputs.training(protocol.batch_size, protocol.precision)
            ended = self._ended(score, stop_below) if stop_below else _never
            curve = train(self.model, inputs, targets, protocol, rate, context, self.seed, first, ended)
        return curve, PhaseCost(
            name=phase.name,
            epochs=len(curve),
            steps=context.step,
            evaluations=evaluations,
            seconds=round(time.perf_counter() - start, 3),
        )

    def _ended(
        self, score: Callable[[], float], stop_below: Sequence[float | None]
    ) -> Callable[[dict[str, float]], bool]:
        def ended(entry: dict[str, float]) -> bool:
            epoch = int(entry["epoch"])
            if epoch > len(stop_below):  # the last one is measured when training is over
                return False
            entry["validation_score"] = score()
            least = stop_below[epoch - 1]
            return least is not None and entry["validation_score"] < least

        return ended


def _never(entry: dict[str, float]) -> bool:
    return False


def train(
    model: AdaptedModel,
    inputs: Tensor | Lazily,
    targets: Targets,
    protocol: Protocol,
    learning_rate: float,
    context: Context,
    seed: int,
    start: int = 0,
    ended: Callable[[dict[str, float]], bool] = _never,
) -> Curve:
    """Train what is trainable, in place; a model with nothing to train is left alone.

    Args:
        inputs: prepared (N, …), or what segment `start` of the backbone reads of them; perhaps on the host.
        targets: of all N, on the model's device.
        learning_rate: of what the method trains; the head's is the protocol's own, where it has one.
        seed: decides the order of the data.
        ended: asked after each epoch, with its entry, whether training is over.

    Returns:
        One entry an epoch: ``epoch``, ``train_loss`` (mean over the epoch's examples), ``learning_rate`` (its last).

    Raises:
        Diverged: on a loss that is not finite; found at the end of the epoch.
    """
    optimizer = make_optimizer(
        model, protocol.optimizer, learning_rate, protocol.weight_decay, protocol.head_learning_rate
    )
    if optimizer is None or protocol.epochs == 0:
        return []
    schedule = make_schedule(optimizer, protocol, context.steps_per_epoch)
    order = torch.Generator().manual_seed(seed)
    step = TrainingStep(model, optimizer, context, protocol.precision, protocol.gradient_checkpointing, start)
    device = next(model.parameters()).device
    curve = []
    for epoch in range(protocol.epochs):
        model.train()
        context.epoch = epoch
        losses = _Losses(epoch)
        with losses:
            for batch, of_batch in _batches(inputs, targets, device, protocol.batch_size, order):
                rate = optimizer.param_groups[0]["lr"]
                step(batch, of_batch, partial(losses.add, rate=rate, size=len(batch)))
                schedule.step()
        curve.append(
            {"epoch": float(epoch + 1), "train_loss": losses.total / len(targets), "learning_rate": losses.rates[-1]}
        )
        if ended(curve[-1]):
            break
    return curve


class _Losses:
    """The losses of an epoch's batches, looked at when it ends: to read each one would let a GPU wait for the host."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.losses: list[Tensor] = []
        self.rates: list[float] = []
        self.sizes: list[int] = []
        self.total = 0.0
        """Σ loss · images."""

    def add(self, loss: Tensor, rate: float, size: int) -> None:
        self.losses.append(loss.detach())
        self.rates.append(rate)
        self.sizes.append(size)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        """Raises Diverged for the first loss that is not finite, also in place of an error that it has led to."""
        values = torch.stack(self.losses).flatten().tolist() if self.losses else []
        for value, rate, size in zip(values, self.rates, self.sizes, strict=True):
            if not math.isfinite(value):
                raise Diverged(f"the loss is {value} in epoch {self.epoch + 1}, at learning rate {rate:.3g}")
            self.total += value * size


def steps_per_epoch(n: int, protocol: Protocol) -> int:
    return math.ceil(n / protocol.batch_size)


def _batches(
    inputs: Tensor | Lazily, targets: Targets, device: torch.device, size: int, order: torch.Generator
) -> Iterator[tuple[Tensor, Targets]]:
    """An epoch's batches, on the targets' `device`; each index is sent there once an epoch, not once a step."""
    permutation = torch.randperm(len(targets), generator=order)
    chosen_inputs, chosen_targets = (permutation.to(where).split(size) for where in (inputs.device, device))
    for at, targets_at in zip(chosen_inputs, chosen_targets, strict=True):
        yield inputs[at].to(device), targets[targets_at]


def make_schedule(
    optimizer: torch.optim.Optimizer, protocol: Protocol, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The protocol's learning rates, each ``step()`` the next: linear warm-up, then cosine to zero, or constant."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step / steps_per_epoch, protocol))


def _schedule(epoch: float, protocol: Protocol) -> float:
    """The share of the learning rate at a (fractional) epoch: linear warm-up, then cosine to zero."""
    if epoch < protocol.warmup_epochs:
        return (epoch + 1e-3) / protocol.warmup_epochs  # not zero: the first step must move something
    if protocol.schedule == "constant":
        return 1.0
    rest = max(protocol.epochs - protocol.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min((epoch - protocol.warmup_epochs) / rest, 1.0)))

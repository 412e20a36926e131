"""Training under a protocol."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from ..methods import AdaptedModel, Context, Phase
from ..results import PhaseCost
from .failures import Diverged
from .protocol import Protocol
from .savings import checkpointed

Curve = list[dict[str, float]]


@dataclass
class Trainer:
    """Carries out the phases of a method's training.

    Attributes:
        images: preprocessed (N, …), on the model's device, with labels (N,).
        learning_rate: of the protocol, for this method; a phase may scale it.
        seed: decides the order of the data.
        validation: the model's accuracy on the validation split as it is, in percent.
    """

    model: AdaptedModel
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    protocol: Protocol
    learning_rate: float
    seed: int
    validation: Callable[[], float]

    def train(self, phase: Phase) -> tuple[Curve, PhaseCost]:
        """Carry out one phase; an entry an epoch (see `train`) and what it took."""
        start, evaluations = time.perf_counter(), 0

        def accuracy() -> float:
            nonlocal evaluations
            evaluations += 1
            return self.validation()

        self.model.method.begin_phase(phase.name, self.model, accuracy)
        protocol = msgspec.structs.replace(self.protocol, epochs=round(self.protocol.epochs * phase.epochs))
        steps = steps_per_epoch(len(self.labels), protocol)
        context = Context(protocol.epochs, steps, self.class_names, self.templates)
        rate = self.learning_rate * phase.learning_rate
        curve = train(self.model, self.images, self.labels, protocol, rate, context, self.seed)
        return curve, PhaseCost(
            name=phase.name,
            epochs=len(curve),
            steps=context.step,
            evaluations=evaluations,
            seconds=round(time.perf_counter() - start, 3),
        )


def train(
    model: AdaptedModel,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    learning_rate: float,
    context: Context,
    seed: int,
) -> Curve:
    """Train what is trainable, in place; a model with nothing to train is left alone.

    Args:
        images: preprocessed (N, …), on the model's device, with labels (N,).
        seed: decides the order of the data.

    Returns:
        One entry an epoch: ``epoch``, ``train_loss`` (mean over the epoch's images), ``learning_rate`` (its last).

    Raises:
        Diverged: on a loss that is not finite.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained or protocol.epochs == 0:
        return []
    optimizer = _optimizer(trained, protocol, learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _schedule(step / context.steps_per_epoch, protocol)
    )
    order = torch.Generator().manual_seed(seed)
    curve = []
    model.train()
    for epoch in range(protocol.epochs):
        context.epoch = epoch
        total = 0.0
        for batch in _batches(len(labels), protocol.batch_size, order):
            rate = optimizer.param_groups[0]["lr"]
            optimizer.zero_grad(set_to_none=True)  # before the forward pass, which would hold them on its peak
            with checkpointed(model.anatomy, protocol.gradient_checkpointing), autocast(protocol, images.device):
                loss = model.method.loss(model, images[batch], labels[batch], context)
            value = loss.item()
            if not math.isfinite(value):
                raise Diverged(f"the loss is {value} in epoch {epoch + 1}, at learning rate {rate:.3g}")
            loss.backward()
            model.method.after_backward(model, context)
            model.optimizer_step(optimizer)
            context.step += 1
            model.method.after_step(model, context)
            schedule.step()
            total += value * len(batch)
        curve.append({"epoch": float(epoch + 1), "train_loss": total / len(labels), "learning_rate": rate})
    return curve


def autocast(protocol: Protocol, device: torch.device) -> torch.autocast:
    """What training and evaluation compute under."""
    return torch.autocast(device.type, torch.bfloat16, enabled=protocol.precision == "bfloat16")


def steps_per_epoch(n: int, protocol: Protocol) -> int:
    return math.ceil(n / protocol.batch_size)


def _batches(n: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    return iter(torch.randperm(n, generator=order).split(size))


def _optimizer(parameters: list[torch.nn.Parameter], protocol: Protocol, rate: float) -> torch.optim.Optimizer:
    """Decay is for matrices: it would pull a bias, norm or scale to zero, not towards the backbone's value."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": protocol.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=rate)


def _schedule(epoch: float, protocol: Protocol) -> float:
    """The share of the learning rate at a (fractional) epoch: linear warm-up, then cosine to zero."""
    if epoch < protocol.warmup_epochs:
        return (epoch + 1e-3) / protocol.warmup_epochs  # not zero: the first step must move something
    if protocol.schedule == "constant":
        return 1.0
    rest = max(protocol.epochs - protocol.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min((epoch - protocol.warmup_epochs) / rest, 1.0)))

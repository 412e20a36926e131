"""One training step: what a run repeats and what a profile measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...methods import AdaptedModel, Context
from .memory_savings import autocast, checkpointed


@dataclass
class TrainingStep:
    """Loss, backward pass and the optimizer's step, with the method's hooks between them.

    Attributes:
        model: in training mode.
        optimizer: of what trains; None where nothing does, and a step is its loss.
        context: its `step` is counted on.
        start: the segment of the backbone that reads the batch (see `AdaptedModel.start_from`).
    """

    model: AdaptedModel
    optimizer: torch.optim.Optimizer | None
    context: Context
    precision: str = "float32"
    gradient_checkpointing: bool = False
    start: int = 0

    def __call__(self, batch: Tensor, labels: Tensor, seen: Callable[[Tensor], None] = lambda loss: None) -> None:
        """Train on a batch (N, …) with its labels (N,), in place.

        Args:
            seen: is given the loss before the backward pass, which a loss that is not finite may break.
        """
        model, method, optimizer = self.model, self.model.method, self.optimizer
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)  # before the forward pass, which would hold them on its peak
        recomputing = checkpointed(model.anatomy, self.gradient_checkpointing)
        with recomputing, autocast(self.precision, labels.device), model.start_from(self.start):
            loss = method.loss(model, batch, labels, self.context)
        seen(loss)
        if optimizer is not None:
            loss.backward()
            method.after_backward(model, self.context)
            model.optimizer_step(optimizer)
            self.context.step += 1
            method.after_step(model, self.context)


def make_optimizer(
    parameters: Sequence[nn.Parameter], kind: str, rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``adamw`` or ``sgd`` (momentum 0.9) over what trains.

    Decay is for matrices: it would pull a bias, norm or scale to zero, not towards the backbone's value.
    """
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=rate)

"""One training step: what a run repeats and what a profile measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...methods import AdaptedModel, Context
from ...tasks import Targets
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

    def __call__(self, batch: Tensor, targets: Targets, seen: Callable[[Tensor], None] = lambda loss: None) -> None:
        """Train on a batch (N, …) with its targets, in place.

        Args:
            seen: is given the loss before the backward pass, which a loss that is not finite may break.
        """
        model, method, optimizer = self.model, self.model.method, self.optimizer
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)  # before the forward pass, which would hold them on its peak
        recomputing = checkpointed(model.anatomy, self.gradient_checkpointing)
        with recomputing, autocast(self.precision, batch.device), model.start_from(self.start):
            loss = method.loss(model, batch, targets, self.context)
        seen(loss)
        if optimizer is not None:
            loss.backward()
            method.after_backward(model, self.context)
            model.optimizer_step(optimizer)
            self.context.step += 1
            method.after_step(model, self.context)


def make_optimizer(
    model: AdaptedModel, kind: str, rate: float, weight_decay: float, head_rate: float | None = None
) -> torch.optim.Optimizer | None:
    """``adamw`` or ``sgd`` (momentum 0.9) over what trains; None where nothing does.

    Decay is for matrices: it would pull a bias, norm or scale to zero, not towards the backbone's value.

    Args:
        head_rate: the learning rate of the head, where it is not `rate`.
    """
    head = set() if head_rate is None else set(model.head_parameters())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [p for p in trained if (p in head) is of_head and (p.dim() >= 2) is matrix],
            "weight_decay": weight_decay if matrix else 0.0,
            "lr": head_rate if of_head else rate,
        }
        for of_head in (False, True)
        for matrix in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return None
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=rate, eps=model.method.epsilon())

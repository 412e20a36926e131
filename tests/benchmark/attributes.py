"""A user's file: a kind of question that peftmark does not know, with a task that asks it (``--import attributes.py``).

Which of four quarters of an image are bright? Any number of them: targets are (N, 4), the loss is a binary
cross-entropy for each, and the figure is how many quarters are wrong, on average: lower is better, and no percentage.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark import TASKS, Task
from peftmark.tasks import Metric, Objective, Split, TaskData

QUARTERS = ("upper left", "upper right", "lower left", "lower right")


class WrongAttributes(Metric):
    """Wrong attributes an image."""

    name, unit, higher_is_better = "wrong_attributes", "attributes", False

    def __init__(self) -> None:
        self.wrong = self.images = 0

    def update(self, predictions: Mapping[str, Tensor], targets: Tensor) -> None:
        self.wrong += int((predictions["predicted"] != targets.bool()).sum())
        self.images += len(targets)

    def value(self) -> float:
        return self.wrong / self.images


class Attributes(Objective):
    """Any number of attributes an image."""

    def __init__(self, count: int) -> None:
        self.count = count

    def head(self, width: int) -> nn.Module:
        return nn.Linear(width, self.count)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets)

    def decode(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"predicted": outputs > 0, "target": targets.bool(), "probability": outputs.float().sigmoid()}

    def metric(self) -> WrongAttributes:
        return WrongAttributes()

    def made_up_targets(self, n: int) -> Tensor:
        return torch.zeros(n, self.count)

    def caption(self, split: Split, index: int) -> str:
        return ", ".join(name for name, there in zip(QUARTERS, split.targets[index].tolist(), strict=True) if there)


def split(n: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    bright = torch.randint(0, 2, (n, 4), generator=generator)
    blocks = bright.view(n, 1, 2, 2).repeat_interleave(20, 2).repeat_interleave(20, 3).expand(n, 3, 40, 40)
    pixels = torch.randint(0, 100, (n, 3, 40, 40), generator=generator) + 100 * blocks
    return Split(pixels.to(torch.uint8), bright.float())


@TASKS.register("toy/quarters", track="image", group="toys")
class Quarters(Task):
    """Which quarters of an image are bright?"""

    def split_sha256(self) -> str:
        return "1" * 64

    def load(self) -> TaskData:
        return TaskData(split(64, 0), split(32, 1), {"test": split(32, 2)})

    def objective(self, data: TaskData) -> Objective:
        return Attributes(data.train.targets.shape[1])

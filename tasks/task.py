"""What a task is: data in fixed splits, class names, a metric."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..errors import PeftmarkError
from ..registry import TASKS


@dataclass(frozen=True)
class Split:
    """Images or clips with their labels.

    Attributes:
        images: uint8 (N, 3, H, W), clips (N, T, 3, H, W), or of a test several clips a video (N, V, T, 3, H, W).
        labels: int64 (N,), in ``range(len(class_names))``.
        class_names: of this split; test splits of an open-vocabulary task may have other classes than training. A class
            may have no images.

    Raises:
        PeftmarkError: where there is not one label an image, or a label without a class name.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise PeftmarkError(f"{len(self.images)} images have {len(self.labels)} labels: give one each")
        without = self.labels[(self.labels < 0) | (self.labels >= len(self.class_names))]
        if len(without):
            raise PeftmarkError(f"label {int(without[0])} has no class name: there are {len(self.class_names)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_view(self) -> bool:
        """Whether there are several clips of each video, whose probabilities are to be averaged."""
        return self.images.dim() == 6


@dataclass(frozen=True)
class TaskData:
    """The splits of a task. `tests` has one entry, or several that the task's `headline` combines."""

    train: Split
    validation: Split
    tests: Mapping[str, Split]

    def sha256(self) -> str:
        """Of all pixels and labels, in a fixed order."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, *(self.tests[name] for name in sorted(self.tests))):
            digest.update(split.images.numpy().tobytes())
            digest.update(split.labels.numpy().tobytes())
        return digest.hexdigest()


class Task(ABC):
    """Base of all tasks; ``TASKS.register(name, track=…, group=…)`` enters one.

    Args:
        name: the full name it was asked for by; a namespace task (``folder/*``) reads its path from it.

    Class attributes:
        version: goes up whenever the data change; it is in every spec.
        metric: the name of the figure; figures are percent.
        templates: prompts for open vocabulary, with {} for the class name.
        num_frames: of a clip; None for images.
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str] = "accuracy"
    templates: ClassVar[tuple[str, ...]] = ()
    num_frames: ClassVar[int | None] = None

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def track(self) -> str:
        """``image``, ``open_vocabulary`` or ``video``."""
        return str(TASKS.entry(self.name).metadata["track"])

    @property
    def group(self) -> str:
        """What the board averages over: natural, specialized, structured, …"""
        return str(TASKS.entry(self.name).metadata["group"])

    @abstractmethod
    def split_sha256(self) -> str:
        """Of what decides which examples are in which split; cheap, and equal on every machine."""

    def check(self) -> list[str]:
        """What is wrong with the task's data where they should lie, and what to do: a line each, none if all is well.

        Cheap, since `peftmark doctor` asks every task: it looks at folders and lists and decodes no image. A task whose
        data are part of the package, or generated, has nothing to look at.
        """
        return []

    @abstractmethod
    def load(self) -> TaskData:
        """Read or generate the data. Raises PeftmarkError where they are not there, saying what to put where."""

    def headline(self, tests: Mapping[str, float]) -> float:
        """The one figure of the task (percent) from its test splits': their mean unless a task says otherwise."""
        return sum(tests.values()) / len(tests)

"""What a task is: data in fixed splits, and the objective that is asked of a model on them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import PeftmarkError
from ..registry import TASKS
from .objectives import Objective, objective_of_track
from .targets import Targets, join, tensors_of

Fingerprint = Mapping[str, tuple[int, str]]
"""What the splits hold, by their names: how many examples, and the sha256 of their inputs and targets."""
Progress = Callable[[str, int, int], None]
"""Called with what is being read, how many examples of it are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Shows no progress."""


@dataclass(frozen=True)
class Split:
    """Examples with their targets.

    Attributes:
        inputs: uint8 images (N, 3, H, W), clips (N, T, 3, H, W), or what else the backbones of the task read; with
            `multi_view` several views of each example, (N, V, …).
        targets: what the task's objective understands: labels are int64 (N,), in ``range(len(class_names))``.
        class_names: of this split; test splits of an open-vocabulary task may have other classes than training. A class
            may have no examples; there are none where targets are no labels.
        digests: uint8 (N, 32), the sha256 of each example's pixels where they are known (`images.decoded`).
        multi_view: whether there are several views of each example (clips of a video), whose outputs are combined.

    Raises:
        PeftmarkError: where there is not one target an example, or a label without a class name.
    """

    inputs: Tensor
    targets: Targets
    class_names: tuple[str, ...] = ()
    digests: Tensor | None = None
    multi_view: bool = False

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise PeftmarkError(f"{len(self.inputs)} inputs have {len(self.targets)} targets: give one each")
        if isinstance(self.targets, Tensor) and self.targets.dtype == torch.int64 and self.targets.dim() == 1:
            labels = self.targets
            without = labels[(labels < 0) | (labels >= len(self.class_names))]
            if len(without):
                raise PeftmarkError(f"label {int(without[0])} has no class name: there are {len(self.class_names)}")

    def __len__(self) -> int:
        return len(self.inputs)

    def parts(self) -> Iterator[bytes]:
        """What tells it from another: its inputs, or their digests where these are known, and its targets."""
        for tensor in (self.inputs if self.digests is None else self.digests, *tensors_of(self.targets)):
            yield tensor.numpy().tobytes()


@dataclass(frozen=True)
class TaskData:
    """The splits of a task.

    Attributes:
        tests: one entry, or several that the task's `headline` combines.
        warnings: what is odd about the data, a sentence each; in every record.
    """

    train: Split
    validation: Split
    tests: Mapping[str, Split]
    warnings: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Of all inputs (or their digests, where these are known) and targets, in a fixed order."""
        splits = (self.train, self.validation, *(self.tests[name] for name in sorted(self.tests)))
        return _sha256(part for split in splits for part in split.parts())

    def fingerprint(self) -> Fingerprint:
        """By which data are known again; cheap where the inputs' digests are known."""
        return {
            name: (len(split), _sha256(split.parts()))
            for name, split in {**self.tests, "train": self.train, "validation": self.validation}.items()
        }

    def train_and_validation(self) -> Split:
        """Both in one split: training examples first. Those that lie one after the other in a file are not copied."""
        one, other = self.train, self.validation
        if one.class_names != other.class_names:
            raise ValueError("training and validation examples have different classes")
        digests = None
        if one.digests is not None and other.digests is not None:
            digests = torch.cat((one.digests, other.digests))
        inputs, targets = _joined(one.inputs, other.inputs), join(one.targets, other.targets)
        return Split(inputs, targets, one.class_names, digests)


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _joined(one: Tensor, other: Tensor) -> Tensor:
    """Both, one after the other; a view where they already are."""
    following = one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() and (
        one.is_contiguous() and other.is_contiguous() and other.storage_offset() == one.storage_offset() + one.numel()
    )
    if not following:
        return torch.cat((one, other))
    return one.as_strided((len(one) + len(other), *one.shape[1:]), one.stride())


class Task(ABC):
    """Base of all tasks; ``TASKS.register(name, track=…, group=…)`` enters one.

    Args:
        name: the full name it was asked for by; a namespace task (``folder/*``) reads its path from it.

    Class attributes:
        version: goes up whenever the data change; it is in every spec.
        metric: the name of the headline figure; None where it is the objective's metric itself.
        templates: prompts for open vocabulary, with {} for the class name; a namespace task may have some by name.
        num_frames: of a clip; None for images.
        preprocessing: the name of how files became pixels (`images.Preprocessing`); None where there are no files. It
            is in every spec.
        caution: what a reader of its figures should know first; the board says it.
        drawn_by_seed: whether a run's seed decides which examples are seen, as in few-shot training; `make_task`
            then sets `draw` to the seed.

    >>> @TASKS.register("example/halves", track="image", group="example")
    ... class Halves(Task):
    ...     '''Is the left half brighter, or the right one?'''
    ...
    ...     def split_sha256(self):
    ...         return hashlib.sha256(b"halves: 8, 4 and 4 images").hexdigest()
    ...
    ...     def load(self):
    ...         return TaskData(self._split(8), self._split(4), {"test": self._split(4)})
    ...
    ...     def _split(self, n):
    ...         labels = torch.arange(n) % 2
    ...         images = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    ...         images[labels == 0, :, :, :4] = images[labels == 1, :, :, 4:] = 255
    ...         return Split(images, labels, ("left", "right"))
    >>> task = make_task("example/halves")
    >>> data = task.load()
    >>> task.track, len(data.train), data.train.class_names
    ('image', 8, ('left', 'right'))
    >>> objective = task.objective(data)
    >>> objective.output, objective.metric().name
    ('pooled', 'accuracy')
    """

    version: ClassVar[int] = 1
    metric: ClassVar[str | None] = None
    templates: tuple[str, ...] = ()
    num_frames: ClassVar[int | None] = None
    preprocessing: ClassVar[str | None] = None
    caution: ClassVar[str] = ""
    drawn_by_seed: ClassVar[bool] = False
    draw: int = 0

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def track(self) -> str:
        """``image``, ``openvocab`` or ``video``."""
        return str(TASKS.entry(self.name).metadata["track"])

    @property
    def group(self) -> str:
        """What the board averages over: natural, specialized, structured, …"""
        return str(TASKS.entry(self.name).metadata["group"])

    @abstractmethod
    def split_sha256(self) -> str:
        """Of what decides which examples are in which split; cheap, and equal on every machine."""

    def expected_sizes(self) -> tuple[int, int, int] | None:
        """Images (or frames) of the training, validation and test splits, as far as known without any data; or None."""
        return None

    def prepare(self, progress: Progress) -> TaskData | None:
        """What can be done once for all runs, before they are launched, with progress: the data, as `load` finds them.

        None where there is nothing to be done. Raises PeftmarkError as `load`.
        """
        return None

    def check(self) -> list[str]:
        """What is wrong with the task's data where they should lie, and what to do: a line each, none if all is well.

        `peftmark doctor` asks every task. As `split_sha256` it looks at folders, lists and files and decodes no image.
        """
        try:
            self.split_sha256()
        except PeftmarkError as error:
            return [str(error).removeprefix(f"task {self.name}: ")]
        return []

    @abstractmethod
    def load(self) -> TaskData:
        """Read or generate the data. Raises PeftmarkError where they are not there, saying what to put where."""

    def objective(self, data: TaskData) -> Objective:
        """What the task asks of a model: by default one label an example, as its track asks for it."""
        return objective_of_track(self.track, data.train.class_names, self.templates)

    def manifest(self) -> dict[str, Any] | None:
        """What a drawn split consists of, plain data to be written beside the records; None where nothing is drawn."""
        return None

    def headline(self, tests: Mapping[str, float]) -> float:
        """The one figure of the task (in the metric's unit) from its test splits', by default their mean."""
        return sum(tests.values()) / len(tests)


def draw_of(name: str, seed: int) -> int:
    """The draw that a run of `seed` sees of a task: the seed itself, or 0 where all runs see the same data."""
    return seed if TASKS[name].drawn_by_seed else 0


def make_task(name: str, draw: int = 0) -> Task:
    """A task, as runs of a `draw_of` see it. Raises PeftmarkError on an unknown name."""
    task = TASKS[name](name)
    task.draw = draw
    return task

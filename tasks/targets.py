"""What examples are compared with: a tensor, or anything else that can be indexed, moved and joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..errors import PeftmarkError


class TargetList(Protocol):
    """Targets of N examples, in their order, that are no tensor. `Ragged` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Self:
        """Those at `indices` (int64, 1-D; on the device of the targets)."""
        ...

    def split(self, size: int, /) -> Sequence[Self]:
        """In order, `size` examples each; the last ones are perhaps fewer."""
        ...

    def to(self, device: torch.device, /) -> Self: ...

    def joined(self, other: Any, /) -> Self:
        """With those of another split behind them. Raises PeftmarkError where these are of another kind."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """All that the targets consist of: equal where they are equal."""
        ...


Targets = Tensor | TargetList
"""Of N examples: a tensor (N, …), e.g. labels or maps, or a list of another kind."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Any number of rows an example: intervals of a video, boxes, words.

    Attributes:
        rows: (M, …), those of the first example, then those of the second, …
        lengths: int64 (N,), how many each example has.

    Raises:
        PeftmarkError: where the lengths do not add up to the rows.

    >>> intervals = Ragged(torch.tensor([[0, 9], [20, 25], [3, 4]]), torch.tensor([2, 0, 1]))
    >>> intervals.of(0).tolist()
    [[0, 9], [20, 25]]
    >>> intervals[torch.tensor([2, 1])].rows.tolist()
    [[3, 4]]
    """

    rows: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if int(self.lengths.sum()) != len(self.rows) or bool((self.lengths < 0).any()):
            raise PeftmarkError(f"the targets' lengths add up to {int(self.lengths.sum())}, not {len(self.rows)} rows")

    def __len__(self) -> int:
        return len(self.lengths)

    def of(self, index: int) -> Tensor:
        """The rows of one example."""
        start = int(self.lengths[:index].sum())
        return self.rows[start : start + int(self.lengths[index])]

    def __getitem__(self, indices: Tensor, /) -> Ragged:
        lengths = self.lengths[indices]
        starts = (self.lengths.cumsum(0) - self.lengths)[indices]
        within = torch.arange(int(lengths.sum()), device=lengths.device)
        within -= (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        return Ragged(self.rows[starts.repeat_interleave(lengths) + within], lengths)

    def split(self, size: int, /) -> list[Ragged]:
        return [self[part] for part in torch.arange(len(self), device=self.lengths.device).split(size)]

    def to(self, device: torch.device, /) -> Ragged:
        return Ragged(self.rows.to(device), self.lengths.to(device))

    def joined(self, other: Any, /) -> Ragged:
        if not isinstance(other, Ragged):
            raise PeftmarkError(f"ragged targets and {type(other).__name__} cannot be one split's targets")
        return Ragged(torch.cat((self.rows, other.rows)), torch.cat((self.lengths, other.lengths)))

    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.lengths, self.rows


def join(one: Targets, other: Targets) -> Targets:
    """Both, those of `one` first. Raises PeftmarkError where they are of different kinds."""
    if not isinstance(one, Tensor):
        return one.joined(other)
    if not isinstance(other, Tensor):
        raise PeftmarkError(f"a tensor and {type(other).__name__} cannot be one split's targets")
    return torch.cat((one, other))


def tensors_of(targets: Targets) -> Sequence[Tensor]:
    """All that targets consist of."""
    return (targets,) if isinstance(targets, Tensor) else targets.tensors()

"""What every result has in common: what it was computed from, an interval, and a result that is withheld."""

from __future__ import annotations

from dataclasses import dataclass

LEVEL = 0.95
"""Of intervals: how often they hold the truth, in the long run."""

DRAWS = 5_000
"""Of a bootstrap or a permutation: an end of an interval is then within 2 % of the interval's length of its limit."""

SEED = 0
"""Of all random draws: what is computed twice from the same figures is the same."""


@dataclass(frozen=True)
class Size:
    """How many of what a result rests on.

    >>> str(Size(tasks=7, seeds=3, examples=3500))
    '7 tasks, 3 seeds, 3,500 test examples'
    >>> str(Size(tasks=1, methods=2))
    '2 methods, 1 task'
    """

    methods: int | None = None
    tasks: int | None = None
    seeds: int | None = None
    """The smallest number that a cell has."""
    examples: int | None = None
    """Of the test sets together."""

    def __str__(self) -> str:
        counts = {
            "method": self.methods,
            "task": self.tasks,
            "seed": self.seeds,
            "test example": self.examples,
        }
        parts = (f"{n:,} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n is not None)
        return ", ".join(parts)


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds what it estimates, at `LEVEL`."""

    estimate: float
    low: float
    high: float
    method: str
    n: Size

    @property
    def holds_zero(self) -> bool:
        """Whether a difference may be none."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Withheld:
    """A result that is not given, and why: a sentence for readers."""

    method: str
    reason: str
    n: Size

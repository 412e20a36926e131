"""What statistics are computed from: a figure for every method, task and seed, in one unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .basis import Size

Figures = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Figures of methods (M), tasks (T) and seeds (S)."""

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Figures
    """(M, T, S); NaN where there is none."""
    higher_is_better: bool = True

    @cached_property
    def cells(self) -> Figures:
        """(M, T): means over the seeds that are there, NaN where none is."""
        present = ~np.isnan(self.values)
        counts = present.sum(axis=2)
        sums = np.where(present, self.values, 0.0).sum(axis=2)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    @property
    def means(self) -> Figures:
        """(M,): the unweighted means over tasks; NaN where a task has none."""
        return self.cells.mean(axis=1)

    @property
    def sign(self) -> float:
        """By which figures are multiplied so that larger ones are better."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def complete(self) -> bool:
        """Whether every method has a figure on every task."""
        return not np.isnan(self.cells).any()

    @property
    def size(self) -> Size:
        counts = (~np.isnan(self.values)).sum(axis=2)
        return Size(len(self.methods), len(self.tasks), int(counts.min()) if counts.size else 0)

    def select(self, methods: Sequence[str], tasks: Sequence[str]) -> Scores:
        """Some of the methods and tasks, in the order in which they are named."""
        rows = [self.methods.index(method) for method in methods]
        columns = [self.tasks.index(task) for task in tasks]
        values = self.values[np.ix_(rows, columns)]
        return Scores(tuple(methods), tuple(tasks), self.seeds, values, self.higher_is_better)

    @cached_property
    def paired(self) -> Figures:
        """(M, T, S'): of the seeds that every cell has, so that methods can be compared seed by seed."""
        missing: NDArray[np.bool_] = np.isnan(self.values)
        return self.values[:, :, ~missing.any(axis=(0, 1))]


def scores_of(figures: Mapping[str, Mapping[str, Mapping[int, float | None]]], higher_is_better: bool = True) -> Scores:
    """Of figures by method, task and seed; None where a run failed, which leaves its whole cell without a figure.

    Tasks and seeds are sorted: results do not depend on the order in which they come. Methods stay in theirs.

    >>> scores_of({"lora": {"count": {0: 50.0, 1: 52.0}, "digits": {0: 90.0, 1: None}}}).cells
    array([[51., nan]])
    """
    tasks = sorted({task for by_task in figures.values() for task in by_task})
    seeds = sorted({seed for by_task in figures.values() for by_seed in by_task.values() for seed in by_seed})
    values = np.full((len(figures), len(tasks), len(seeds)), np.nan)
    for row, by_task in enumerate(figures.values()):
        for task, by_seed in by_task.items():
            if None not in by_seed.values():
                for seed, value in by_seed.items():
                    values[row, tasks.index(task), seeds.index(seed)] = value
    return Scores(tuple(figures), tuple(tasks), tuple(seeds), values, higher_is_better)


@dataclass(frozen=True, eq=False)
class InCommon:
    """The tasks that all compared methods finished, and what that leaves out, with the reason."""

    scores: Scores
    left_out_methods: dict[str, str]
    left_out_tasks: dict[str, str]


def in_common(scores: Scores, least: float = 0.5) -> InCommon:
    """Cut scores down to what can be compared: every method has a figure on every task that is left.

    A method that finished less than the share `least` of the tasks that any method finished is left out, as it would
    take most tasks from all others; then a task that any of the rest did not finish.
    """
    finished: NDArray[np.bool_] = ~np.isnan(scores.cells)
    by_any = finished.sum(axis=0) > 0
    total = int(by_any.sum())
    methods, left_out_methods = [], {}
    for method, row in zip(scores.methods, finished, strict=True):
        if row.sum() < max(least * total, 1):
            left_out_methods[method] = f"finished {row.sum()} of {total} tasks"
        else:
            methods.append(method)
    tasks, left_out_tasks = [], {}
    for column, task in enumerate(scores.tasks):
        lacking = [method for method in methods if not finished[scores.methods.index(method), column]]
        if not by_any[column]:
            left_out_tasks[task] = "no method finished it"
        elif lacking:
            left_out_tasks[task] = f"not finished by {_listed(lacking)}"
        else:
            tasks.append(task)
    return InCommon(scores.select(methods, tasks), left_out_methods, left_out_tasks)


def _listed(names: Iterable[str], most: int = 3) -> str:
    first, rest = list(names)[:most], list(names)[most:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")

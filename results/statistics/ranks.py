"""Ranks over tasks: wins, mean ranks, Friedman's test and Nemenyi's critical difference.

Rules and formulae of Demšar 2006 (*JMLR* 7:1), whose diagram the mean ranks are drawn in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .basis import DRAWS, LEVEL, SEED, Size, Withheld
from .groups import runs_of
from .scores import Figures, Scores

MORE_TASKS_THAN = 10
MORE_METHODS_THAN = 5
"""From where on Friedman's statistic follows its limit well (Demšar 2006, 3.2.2: N > 10, k > 5)."""


@dataclass(frozen=True, eq=False)
class Wins:
    """On how many tasks the row's method is better than the column's, or equal to it."""

    methods: tuple[str, ...]
    wins: NDArray[np.int64]
    """(M, M); losses are its transpose."""
    ties: NDArray[np.int64]
    """(M, M), with all tasks on the diagonal."""
    method: str
    n: Size


@dataclass(frozen=True)
class Friedman:
    """A test that all methods rank equally."""

    statistic: float
    """Friedman's chi-square, corrected for ties."""
    p: float
    method: str
    n: Size


@dataclass(frozen=True, eq=False)
class Nemenyi:
    """Which mean ranks differ, each pair at a level that holds for all pairs together."""

    methods: tuple[str, ...]
    """The best mean rank first."""
    mean_ranks: Figures
    critical_difference: float
    p: Figures
    """(M, M)"""
    groups: tuple[tuple[str, ...], ...]
    """Runs of methods that differ by less than the critical difference, the diagram's bars; one alone is none."""
    method: str
    n: Size


def win_matrix(scores: Scores) -> Wins:
    """Of the cells' means over seeds; equal to nine digits behind the point is equal."""
    cells = np.round(scores.sign * scores.cells, 9)
    wins = (cells[:, None] > cells[None]).sum(axis=2)
    ties = (cells[:, None] == cells[None]).sum(axis=2)
    return Wins(scores.methods, wins, ties, "count of tasks, by the mean over seeds", scores.size)


def task_ranks(scores: Scores) -> Figures:
    """(M, T): 1 is the best of a task, equal figures share their mean rank."""
    from scipy.stats import rankdata

    ranks: Figures = rankdata(-np.round(scores.sign * scores.cells, 9), axis=0)
    return ranks


def friedman(scores: Scores) -> Friedman | Withheld:
    """With more than 10 tasks and 5 methods p is that of Iman & Davenport (1980): Friedman's own is too large.

    With fewer no limit is good, and p is that of ranks permuted within tasks, of which as many draws are made.
    """
    name = "Friedman's test of ranks over tasks (Demšar 2006)"
    if (withheld := _why_withheld(scores, name)) is not None:
        return withheld
    ranks = task_ranks(scores)
    methods, tasks = ranks.shape
    statistic = float(_statistic(ranks.sum(axis=1), ranks))
    if tasks > MORE_TASKS_THAN and methods > MORE_METHODS_THAN:
        from scipy.stats import f

        rest = tasks * (methods - 1) - statistic
        ratio = (tasks - 1) * statistic / rest if rest > 1e-9 else math.inf
        p = float(f.sf(ratio, methods - 1, (methods - 1) * (tasks - 1)))
        return Friedman(statistic, p, f"{name}, F of Iman & Davenport (1980)", scores.size)
    random = np.random.default_rng(SEED)
    sums = np.zeros((DRAWS, methods))
    for task in ranks.T:
        sums += random.permuted(np.broadcast_to(task, (DRAWS, methods)), axis=1)
    as_far = int((_statistic(sums.T, ranks) >= statistic - 1e-9).sum())
    return Friedman(statistic, (as_far + 1) / (DRAWS + 1), f"{name}, {DRAWS:,} permutations within tasks", scores.size)


def nemenyi(scores: Scores) -> Nemenyi | Withheld:
    """Of mean ranks, by the studentised range, which takes many tasks: with 10 or fewer it is withheld."""
    name = "Nemenyi's test of mean ranks (1963; Demšar 2006)"
    if (withheld := _why_withheld(scores, name)) is not None:
        return withheld
    tasks = len(scores.tasks)
    if tasks <= MORE_TASKS_THAN:
        reason = (
            f"{tasks} tasks are too few: mean ranks are near enough to normal with more than {MORE_TASKS_THAN} "
            "(Demšar 2006, 3.2.2)"
        )
        return Withheld(name, reason, scores.size)
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import studentized_range

    ranks = task_ranks(scores)
    mean_ranks = ranks.mean(axis=1)
    count = len(mean_ranks)
    difference = float(studentized_range.ppf(LEVEL, count, math.inf)) * math.sqrt(count * (count + 1) / (12 * tasks))
    order = np.argsort(mean_ranks, kind="stable")
    methods = tuple(scores.methods[place] for place in order)
    ordered = mean_ranks[order]
    p = np.asarray(posthoc_nemenyi_friedman(ranks.T), dtype=np.float64)[np.ix_(order, order)]
    apart = np.abs(ordered[:, None] - ordered) > difference
    runs = [run for run in runs_of(apart.tolist()) if len(run) > 1]
    bars = tuple(tuple(methods[place] for place in run) for run in runs)
    return Nemenyi(methods, ordered, difference, p, bars, name, scores.size)


def _why_withheld(scores: Scores, name: str) -> Withheld | None:
    if not scores.complete:
        return Withheld(name, "not every method has finished every task", scores.size)
    if len(scores.methods) < 3:
        return Withheld(name, "it compares three methods or more; two are compared by their differences", scores.size)
    if len(scores.tasks) < 2:
        return Withheld(name, "ranks on one task are no sample of ranks", scores.size)
    return None


def _statistic(sums: Figures, ranks: Figures) -> Figures:
    """Friedman's chi-square, corrected for ties, of sums over tasks (M, …) of ranks (M, T)."""
    methods, tasks = ranks.shape
    centre = (methods + 1) / 2
    spread = ((ranks - centre) ** 2).sum()
    if spread == 0:  # all tie everywhere
        return np.zeros(sums.shape[1:])
    chi2: Figures = (methods - 1) * ((sums - tasks * centre) ** 2).sum(axis=0) / spread
    return chi2

"""Ranks as far as the figures carry them: who may be the best, which ranks a method may have, and who forms a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .basis import LEVEL, Size, Withheld
from .bootstrap import Level, Pairs, draws, freedom, why_withheld
from .scores import Scores

if TYPE_CHECKING:
    from .scores import Figures


@dataclass(frozen=True)
class Best:
    """The methods among which the best one is, at `LEVEL`: those within noise of the best."""

    methods: tuple[str, ...]
    """The best figure first."""
    method: str
    n: Size


def within_noise_of_best(scores: Scores, over: Level = "tasks") -> Best | Withheld:
    """A set of methods that holds the truly best one in 95 % of repetitions; of few tasks (5 to 8), with all methods
    exactly equal, in 90 to 93 %.

    A method is left out where some other one is better by more standard errors than the largest of all such differences
    reaches by chance; for each method the bootstrap says how large that is, so the number of methods is accounted for
    (comparisons with the best: Gupta 1965, Hsu 1984; by bootstrap: Mogstad, Romano, Shaikh & Wilhelm 2024, *Review of
    Economic Studies* 91:476, for the rank 1). Comparing each with the winner alone would leave out more, and the
    best one among them too often: that the winner is ahead is a part of its being chosen.
    """
    method = f"set that holds the best method at {LEVEL:.0%}: largest t over the other methods, bootstrap over {over}"
    if (withheld := why_withheld(scores, over, method)) is not None:
        return withheld
    drawn = scores.sign * draws(scores, over)
    means = scores.sign * (scores.means if over == "tasks" else scores.paired.mean(axis=(1, 2)))
    deviations = drawn - means[:, None]
    degrees = freedom(scores, over)
    kept = [_may_be_best(place, means, deviations, degrees) for place in range(len(means))]
    order = sorted(range(len(means)), key=lambda place: -round(float(means[place]), 9))
    return Best(tuple(scores.methods[place] for place in order if kept[place]), method, scores.size)


def _may_be_best(place: int, means: Figures, deviations: Figures, degrees: int) -> bool:
    from scipy.special import ndtr, stdtrit

    behind = np.delete(means - means[place], place)
    if not behind.size:
        return True
    apart = np.delete(deviations, place, axis=0) - deviations[place]
    errors = np.sqrt(np.mean(apart**2, axis=1))
    known = errors > 1e-9  # always the same difference: no noise at all
    if (behind[~known] > 1e-9).any():
        return False
    if not known.any():
        return True
    chance = (apart[known] / errors[known, None]).max(axis=0)
    limit = float(stdtrit(degrees, ndtr(np.quantile(chance, LEVEL))))
    return bool((behind[known] / errors[known]).max() <= limit)


def rank_ranges(pairs: Pairs) -> list[tuple[int, int]]:
    """The ranks that each method may have: below all that are better than it beyond noise, above all that are worse.

    >>> apart = np.array([[0.0, 1.0, 3.0], [-1.0, 0.0, 2.0], [-3.0, -2.0, 0.0]])
    >>> rank_ranges(Pairs(("a", "b", "c"), True, apart, apart - 1.5, apart + 1.5, "", Size()))
    [(1, 2), (1, 2), (3, 3)]
    """
    better = pairs.better
    count = len(better)
    return [(1 + int(above), count - int(below)) for above, below in zip(better.sum(0), better.sum(1), strict=True)]


def groups_of(pairs: Pairs) -> list[tuple[str, ...]]:
    """Runs of the ranking within which no two methods can be told apart, none within another; best first.

    A method may stand in several, and two that can be told apart in none together: the bars of a critical-difference
    diagram.
    """
    sign = 1 if pairs.higher_is_better else -1
    order = sorted(range(len(pairs.methods)), key=lambda row: -sign * float(pairs.estimate[row].sum()))
    apart = pairs.told_apart[np.ix_(order, order)]
    return [tuple(pairs.methods[order[place]] for place in run) for run in runs_of(apart.tolist())]


def runs_of(apart: Sequence[Sequence[bool]]) -> list[range]:
    """The longest runs of neighbours of which no two are told apart.

    >>> runs_of([[False, False, True], [False, False, False], [True, False, False]])
    [range(0, 2), range(1, 3)]
    """
    found: list[range] = []
    for start in range(len(apart)):
        end = start + 1
        while end < len(apart) and not any(apart[end][place] for place in range(start, end)):
            end += 1
        if not found or end > found[-1].stop:
            found.append(range(start, end))
    return found

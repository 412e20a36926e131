"""A hierarchical bootstrap over tasks and seeds: intervals of means and of paired differences, and who is first.

Which level is drawn anew says what a result is about:

- `tasks`: how methods compare *on tasks of this kind*. Tasks are drawn with replacement, each with all of its seeds:
  the noise of seeds is in the spread over tasks already, and drawing seeds within drawn tasks would count it twice
  (Davison & Hinkley 1997, *Bootstrap Methods and their Application*, 3.8, second strategy; Field & Welsh 2007, *J. R.
  Statist. Soc. B* 69:369). One seed is enough.
- `seeds`: how methods compare *on these tasks*, were they trained again. Seeds are drawn within every task.

All methods share the drawn indices. Plain percentiles of the mean of few values are too narrow, twice: draws spread by
(n - 1)/n of the variance, and z stands where t should. Draws are rescaled for the former (Rao & Wu 1988, *JASA*
83:231), and the percentiles' distances from the mean are stretched by t/z for the latter: the two corrections of
Hesterberg 2015 (arXiv:1411.5279, expanded percentiles), on lengths, because at six tasks his 0.3 % percentile is the
edge of what can be drawn at all. It covers 93 to 97 % where differences are spread over tasks symmetrically or with a
skewness of 1 (from 7 tasks), and 89 to 93 % at a skewness of 2, as Student's t does (``tools/simulated_coverage.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .basis import DRAWS, LEVEL, SEED, Interval, Size, Withheld
from .scores import Figures, Scores

Level = Literal["tasks", "seeds"]

MIN_TASKS = 5
"""Of which tasks can be drawn anew: of four, the 2.5 % percentile is one of the three most extreme draws there are."""

MIN_SEEDS = 2

_NAMES: dict[Level, str] = {
    "tasks": "hierarchical bootstrap over tasks, each with its seeds (Davison & Hinkley 1997, 3.8)",
    "seeds": "bootstrap over seeds within these tasks",
}
_CORRECTED = "percentiles widened for few {} (Rao & Wu 1988; Hesterberg 2015)"


@dataclass(frozen=True, eq=False)
class Pairs:
    """Differences of all pairs of M methods: of each one's figure, that of the other taken away; row minus column."""

    methods: tuple[str, ...]
    higher_is_better: bool
    estimate: Figures
    """(M, M)"""
    low: Figures
    high: Figures
    method: str
    n: Size

    @property
    def better(self) -> NDArray[np.bool_]:
        """(M, M): whether the row's method is better than the column's, beyond noise: the interval excludes zero."""
        return self.low > 0 if self.higher_is_better else self.high < 0

    @property
    def told_apart(self) -> NDArray[np.bool_]:
        """(M, M), symmetric."""
        return self.better | self.better.T

    def interval(self, one: str, other: str) -> Interval:
        place = self.methods.index(one), self.methods.index(other)
        return Interval(
            float(self.estimate[place]), float(self.low[place]), float(self.high[place]), self.method, self.n
        )


@dataclass(frozen=True, eq=False)
class FirstPlaces:
    """How often each method comes first over the draws; a shared first place counts in parts."""

    methods: tuple[str, ...]
    shares: Figures
    """(M,); they add up to 1."""
    first: str
    """Of the figures themselves; the first named of equal ones."""
    method: str
    n: Size

    @property
    def changes(self) -> float:
        """How often another method than `first` comes first."""
        return 1.0 - float(self.shares[self.methods.index(self.first)])


def mean_intervals(scores: Scores, over: Level = "tasks") -> list[Interval] | Withheld:
    """Of every method's mean over tasks, in the methods' order.

    Over tasks it says where the mean on other tasks of this kind would lie, and is as wide as tasks are different: for
    comparisons of methods it is of no use (`paired_differences` is).
    """
    method = f"{_NAMES[over]}; {_CORRECTED.format(over)}"
    if (withheld := why_withheld(scores, over, method)) is not None:
        return withheld
    means = _values(scores, over).mean(axis=(1, 2))
    lows, highs = _limits(draws(scores, over) - means[:, None], freedom(scores, over))
    ends = zip(means, means + lows, means + highs, strict=True)
    return [Interval(float(mean), float(low), float(high), method, scores.size) for mean, low, high in ends]


def paired_differences(scores: Scores, over: Level = "tasks") -> Pairs | Withheld:
    """Of all pairs of methods, each pair on the same draws. Not adjusted for how many pairs there are."""
    method = f"paired differences, {_NAMES[over]}; {_CORRECTED.format(over)}; not adjusted for the number of pairs"
    if (withheld := why_withheld(scores, over, method)) is not None:
        return withheld
    means = _values(scores, over).mean(axis=(1, 2))
    deviations = draws(scores, over) - means[:, None]
    count = len(means)
    low, high = np.zeros((count, count)), np.zeros((count, count))
    for row in range(count - 1):  # a row at a time: all pairs at once would not fit the cache
        lows, highs = _limits(deviations[row] - deviations[row + 1 :], freedom(scores, over))
        low[row, row + 1 :], high[row, row + 1 :] = lows, highs
    low, high = low - high.T, high - low.T
    estimate = means[:, None] - means
    return Pairs(
        scores.methods, scores.higher_is_better, estimate, estimate + low, estimate + high, method, scores.size
    )


def first_places(scores: Scores, over: Level = "tasks") -> FirstPlaces | Withheld:
    """How often each method has the best mean over the draws."""
    method = f"share of draws with the best mean, {_NAMES[over]}"
    if (withheld := why_withheld(scores, over, method)) is not None:
        return withheld
    drawn = scores.sign * draws(scores, over)
    ahead = np.isclose(drawn, drawn.max(axis=0), rtol=0, atol=1e-9)  # equal but for the order of additions is equal
    shares = (ahead / ahead.sum(axis=0)).mean(axis=1)
    first = scores.methods[int(np.argmax(np.round(scores.sign * scores.means, 9)))]
    return FirstPlaces(scores.methods, shares, first, method, scores.size)


def why_withheld(scores: Scores, over: Level, method: str) -> Withheld | None:
    """None where there is enough to draw from."""
    if not scores.methods or not scores.complete:
        reason = "not every method has finished every task"
    elif over == "tasks" and len(scores.tasks) < MIN_TASKS:
        reason = f"{len(scores.tasks)} tasks are too few to stand for others; {MIN_TASKS} are needed"
    elif over == "seeds" and scores.paired.shape[2] < MIN_SEEDS:
        reason = "one seed says nothing of how results vary over seeds; two that every cell has are needed"
    else:
        return None
    return Withheld(method, reason, scores.size)


def freedom(scores: Scores, over: Level) -> int:
    """Degrees of freedom of the spread that draws have."""
    return len(scores.tasks) - 1 if over == "tasks" else len(scores.tasks) * (scores.paired.shape[2] - 1)


def draws(scores: Scores, over: Level) -> Figures:
    """(M, `DRAWS`): the methods' means in every draw, rescaled about the means themselves so that their variance is
    that of a mean."""
    values = _values(scores, over)
    methods, tasks, seeds = values.shape
    drawn, outer = (tasks, 1) if over == "tasks" else (seeds, tasks)
    random = np.random.default_rng(SEED)
    # how often each is drawn is all that a mean needs
    weights = random.multinomial(drawn, np.full(drawn, 1 / drawn), size=(DRAWS, outer)) / (drawn * outer)
    deviations = values - values.mean(axis=1 if over == "tasks" else 2, keepdims=True)
    moved = deviations.reshape(methods, -1) @ weights.reshape(DRAWS, -1).T
    means: Figures = values.mean(axis=(1, 2))[:, None] + moved * math.sqrt(drawn / (drawn - 1))
    return means


def _values(scores: Scores, over: Level) -> Figures:
    """(M, T, 1) or (M, T, S): what is drawn from."""
    return scores.cells[:, :, None] if over == "tasks" else scores.paired


def _limits(deviations: Figures, degrees: int) -> tuple[Figures, Figures]:
    """(N, draws) to both limits (N,), as differences from the estimate."""
    tail = (1 - LEVEL) / 2
    last = deviations.shape[1] - 1
    ordered = np.partition(deviations, (low := round(tail * last), last - low), axis=1)
    stretch = stretch_to_t(degrees)
    return stretch * np.minimum(ordered[:, low], 0), stretch * np.maximum(ordered[:, last - low], 0)


def stretch_to_t(degrees: int) -> float:
    """Student's quantile over the normal one, at `LEVEL`."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2) / ndtri((1 + LEVEL) / 2))

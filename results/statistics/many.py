"""One method against each other one: as many tests as there are others, at a level that holds for all together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...errors import PeftmarkError
from .basis import LEVEL, Size, Withheld
from .scores import Figures, Scores


@dataclass(frozen=True)
class Comparison:
    """With one other method, over tasks."""

    other: str
    difference: float
    """Mean over tasks, the method's figure less the other's."""
    p: float
    """Of this pair alone."""
    adjusted: float
    """For all comparisons together."""

    @property
    def differs(self) -> bool:
        return self.adjusted <= 1 - LEVEL


@dataclass(frozen=True)
class Against:
    """A method against each other one."""

    one: str
    others: tuple[Comparison, ...]
    method: str
    n: Size


def against_each(scores: Scores, one: str) -> Against | Withheld:
    """Wilcoxon's signed-rank test over tasks with each other method, p adjusted by Holm (1979).

    Not Nemenyi's test, which pays for all pairs where only those with `one` are asked for (Demšar 2006, 3.2.2).
    Withheld where even a method that is better on every task would not reach the level.

    Raises:
        PeftmarkError: where `one` is not among the methods.
    """
    if one not in scores.methods:
        raise PeftmarkError(f"{one} is not among the compared methods: name one of {', '.join(scores.methods)}")
    method = "Wilcoxon's signed-rank test over tasks (exact), adjusted for the number of methods by Holm (1979)"
    others = [name for name in scores.methods if name != one]
    if not others or not scores.complete:
        return Withheld(method, "there is no other method that finished every task", scores.size)
    tasks = len(scores.tasks)
    smallest = min(1.0, len(others) * 2.0 ** (1 - tasks))
    if smallest > 1 - LEVEL:
        reason = (
            f"{tasks} task{'' if tasks == 1 else 's'} cannot show it against {len(others)}: better on every one "
            f"would give p = {smallest:.2g}"
        )
        return Withheld(method, reason, scores.size)
    from statsmodels.stats.multitest import multipletests

    row = scores.cells[scores.methods.index(one)]
    differences = [np.round(row - scores.cells[scores.methods.index(name)], 9) for name in others]
    raw = [wilcoxon_p(each) for each in differences]
    adjusted = multipletests(raw, alpha=1 - LEVEL, method="holm")[1]
    parts = zip(others, differences, raw, adjusted, strict=True)
    compared = (Comparison(name, float(d.mean()), p, float(q)) for name, d, p, q in parts)
    return Against(one, tuple(compared), method, scores.size)


def wilcoxon_p(differences: Figures) -> float:
    """Two-sided and exact, with ties and zeros, too: every sign of every rank is as likely as the other.

    scipy's test is exact without ties, and with them permutes for seconds a pair. Zeros take part in the ranking and
    have no sign (Pratt 1959): a tie is no reason to have fewer tasks.

    >>> wilcoxon_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    0.0625
    """
    from scipy.stats import rankdata

    signed = 2 * rankdata(np.abs(differences)) * np.sign(differences)  # whole numbers: ties have halves of ranks
    likely = _sums(tuple(sorted(np.abs(signed[signed != 0]).astype(int).tolist())))
    total = len(likely) - 1
    as_far = np.abs(2 * np.arange(total + 1) - total) >= abs(signed.sum())
    return float(likely[as_far].sum())


@lru_cache(maxsize=256)
def _sums(ranks: tuple[int, ...]) -> Figures:
    """How likely each sum of the positive ones is; the same for all pairs of methods without ties."""
    likely = np.ones(1)
    for rank in ranks:
        likely = (np.pad(likely, (0, rank)) + np.pad(likely, (rank, 0))) / 2
    return likely

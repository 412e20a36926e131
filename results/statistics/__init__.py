"""How sure a comparison is: intervals, tests and ranks of plain figures. numpy and scipy, no torch, no pandas.

A board has two questions, and an interval answers one of them:

- **How far can this row's mean be trusted?** The tasks are what the benchmark is: they stay, and what could have been
  otherwise are the seeds and the examples in the test sets. `on_these_tasks` has the standard error of each and of
  both, and their interval. An interval over *other tasks* would be as wide as tasks are unlike each other, tens of
  points, for every method alike, and say nothing of methods.
- **Is one method better than another?** That is claimed of tasks like these, not of these alone, so tasks are a sample.
  What tasks have in common cancels in the difference of two methods on the same tasks (`paired_differences`), whose
  interval holds the noise of seeds, too; with one seed it is valid, and wider. `within_noise_of_best`, `rank_ranges`
  and `groups_of` say what follows of ranks, `first_places` how often the winner changes. Of
  these tasks alone, trained again and tested on other examples, `paired_on_these_tasks` answers, or the same
  functions with ``over="seeds"``; of these trained models `paired_examples` does.

Beside these stand the field's tests over tasks, `friedman` and `nemenyi`, `signed_ranks` and `against_each`, which ask
the second question of ranks, and whether a model knows what it knows (`calibration_of`).

Every function takes tasks that all compared methods finished (`in_common`); every result names its method and n; one
that cannot be given is `Withheld`, with the reason. Random draws have a fixed seed and a fixed order. Which intervals
hold what they say is simulated in ``tools/simulated_coverage.py``, where the truth is known.
"""

from .basis import DRAWS, LEVEL, Interval, Size, Withheld
from .bootstrap import (
    MIN_TASKS,
    FirstPlaces,
    Level,
    Pairs,
    first_places,
    mean_intervals,
    paired_differences,
)
from .calibration import Bin, Calibration, calibration_of
from .groups import Best, groups_of, rank_ranges, within_noise_of_best
from .many import Against, Comparison, against_each
from .paired import McNemar, PairedExamples, difference_by_example, mcnemar, paired_examples
from .ranks import Friedman, Nemenyi, Wins, friedman, nemenyi, win_matrix
from .sampling import binomial_variance, is_correct, sampling_variance, wilson
from .scores import InCommon, Scores, in_common, scores_of
from .signed_rank import ROPE, SignedRanks, signed_ranks
from .these_tasks import Uncertainty, differences, on_these_tasks, paired_on_these_tasks

__all__ = [
    "DRAWS",
    "LEVEL",
    "MIN_TASKS",
    "ROPE",
    "Against",
    "Best",
    "Bin",
    "Calibration",
    "Comparison",
    "FirstPlaces",
    "Friedman",
    "InCommon",
    "Interval",
    "Level",
    "McNemar",
    "Nemenyi",
    "PairedExamples",
    "Pairs",
    "Scores",
    "SignedRanks",
    "Size",
    "Uncertainty",
    "Wins",
    "Withheld",
    "against_each",
    "binomial_variance",
    "calibration_of",
    "difference_by_example",
    "differences",
    "first_places",
    "friedman",
    "groups_of",
    "in_common",
    "is_correct",
    "mcnemar",
    "mean_intervals",
    "nemenyi",
    "on_these_tasks",
    "paired_differences",
    "paired_examples",
    "paired_on_these_tasks",
    "rank_ranges",
    "sampling_variance",
    "scores_of",
    "signed_ranks",
    "wilson",
    "win_matrix",
    "within_noise_of_best",
]

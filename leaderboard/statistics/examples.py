"""The first row of a ranking against each other one, test example by test example, where predictions were kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import PeftmarkError
from ...results.predictions import PREDICTED, read_predictions
from ...results.statistics import PairedExamples, difference_by_example, paired_examples
from ..accuracy.table import Row
from .ranking import Ranking

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Labels = Mapping[str, Mapping[str, "NDArray[Any]"]]
"""By test split: ``target`` and ``predicted``."""


@dataclass(frozen=True)
class AgainstFirst:
    """The first row less another one, on the tasks and seeds that both kept predictions of."""

    row: Row
    result: PairedExamples
    adjusted: float
    """p for all rows together (Holm 1979)."""


def against_first(ranking: Ranking, files: Mapping[str, Path]) -> list[AgainstFirst]:
    """In the order of the ranking; rows without a task of one label an example in common are not there.

    Args:
        files: of predictions, by run id.
    """
    if ranking.budget is not None or not files:
        return []
    read: dict[str, Labels] = {}

    def labels(row: Row, task: str) -> dict[int, Labels]:
        """By seed."""
        for run in row.cells[task].runs:
            if run.run_id not in read:
                read[run.run_id] = _labels(files[run.run_id]) if run.run_id in files else {}
        return {run.spec.seed: read[run.run_id] for run in row.cells[task].runs if read[run.run_id]}

    found = []
    for row in ranking.in_order[1:]:
        strata: list[NDArray[np.int8]] = []
        for task in ranking.scores.tasks:
            one, other = labels(ranking.first, task), labels(row, task)
            seeds = sorted(set(one) & set(other))
            for split in sorted(set().union(*(one[seed] for seed in seeds)) if seeds else ()):
                try:
                    pair = [[each[seed][split] for seed in seeds] for each in (one, other)]
                    strata.append(difference_by_example(*pair))
                except (KeyError, PeftmarkError):
                    continue  # not of the same examples
        if strata:
            found.append((row, paired_examples(strata)))
    if not found:
        return []
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests([result.p for _, result in found], method="holm")[1]
    return [AgainstFirst(row, result, float(p)) for (row, result), p in zip(found, adjusted, strict=True)]


def _labels(path: Path) -> Labels:
    """Nothing where the file cannot be read: the page of hard examples says why."""
    try:
        splits = read_predictions(path)
    except PeftmarkError:
        return {}
    kept = {}
    for split, arrays in splits.items():
        if PREDICTED in arrays and "target" in arrays and arrays[PREDICTED].dtype.kind in "iu":
            kept[split] = {"target": arrays["target"], PREDICTED: arrays[PREDICTED]}
    return kept

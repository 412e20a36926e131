"""How far a row's mean can be trusted on the table's own tasks: over seeds, and over the choice of test examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...results import Quality
from ...results.statistics import Uncertainty, binomial_variance, on_these_tasks
from ..accuracy.table import Cell, Row


def uncertainty_of(row: Row, tasks: Sequence[str]) -> Uncertainty | None:
    """Of a row's mean over these tasks; None where a cell lacks a seed, and of a tuned row, a median of studies."""
    cells = [row.cells.get(task) for task in tasks]
    known = [cell for cell in cells if cell is not None and cell.complete]
    if not known or len(known) < len(tasks) or row.budget is not None:
        return None
    values = np.full((len(known), max(len(cell.values) for cell in known)), np.nan)
    for place, cell in enumerate(known):
        values[place, : len(cell.values)] = list(cell.values.values())
    sampling = [sampling_of(cell) for cell in known]
    examples = sum(run.quality.n_test for cell in known for run in cell.runs[:1] if run.quality)
    shares = [variance for variance in sampling if variance is not None]
    if len(shares) < len(sampling):
        return on_these_tasks(values)
    return on_these_tasks(values, np.array(shares), examples)


def sampling_of(cell: Cell) -> float | None:
    """The variance that the test set's sampling adds to a cell's mean, at most; None where figures are no shares."""
    qualities = [run.quality for run in cell.runs if run.quality is not None]
    if not qualities or not all(is_share(quality) for quality in qualities):
        return None
    return sum(binomial_variance(quality.test, quality.n_test) for quality in qualities) / len(qualities)


def is_share(quality: Quality) -> bool:
    """Whether the figure is the percentage of the test examples that were right, and not some other mean."""
    right = quality.test * quality.n_test / 100
    return quality.unit == "percent" and 0 <= quality.test <= 100 and abs(right - round(right)) < 1e-6

"""Rows of what searches chose.

- A cell is the median over the studies of a search of what each chose, in turn a mean over seeds; a row's mean is the
  median of the studies' own means over the tasks. How trials are dealt into studies is the same on all tasks.
- A study counts as the worst where a final run of it failed, and stays in the median.
- A row is ranked among rows of the same budget, where all trials of its searches and all studies' final runs are there.
- Final runs of trials that no study chooses any more are left out, as are trials: those are measured on validation
  splits and stand in no table.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...results import RunRecord
from ..tuning.searches import Search
from .table import Row, Study, TunedCell


def tuned_cell(search: Search, runs: Sequence[RunRecord]) -> TunedCell:
    """Of the final runs of a search that are kept."""
    runs = sorted(runs, key=lambda run: (run.spec.trial, run.spec.seed))
    trials = search.choices or sorted({run.spec.trial for run in runs})
    studies = [Study(tuple(run for run in runs if run.spec.trial == trial), trial) for trial in trials]
    return TunedCell(tuple(runs), search, tuple(studies))


def why_partial(row: Row) -> str:
    """What a tuned row lacks on the tasks where it has final runs; the empty string where that is nothing."""
    cells = row.tuned_cells.values()
    without_trials = sum(bool(cell.search.missing) for cell in cells)
    untested = sum(not all(study.values or study.failures for study in cell.choices) for cell in cells)
    failed = sum(cell.summary is None and bool(cell.failures) for cell in cells)
    for n, what in ((without_trials, "trials are missing"), (untested, "not all studies are tested")):
        if n:
            return f"{what} on {n} task{'s' * (n > 1)}"
    return f"most studies failed on {failed} task{'s' * (failed > 1)}" if failed else ""

"""What stands where a row meets a column: a figure, and what a pointer is told of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ...results import RunRecord
from ..formatting import digits, exact, plain, spread
from ..summary import Summary, mean_over_tasks, median_of_studies
from .table import Cell, Column, Figure, Group, Row, Scale, Study, TunedCell


def mean_of(row: Row, tasks: Sequence[str], scale: Scale) -> Summary | None:
    """The mean over tasks, of several studies the median of theirs; None unless the row covers all tasks."""
    cells = [row.cells.get(name) for name in tasks]
    complete = [cell for cell in cells if cell is not None and cell.complete]
    if not tasks or len(complete) < len(tasks):
        return None
    studies = zip(*(cell.studies for cell in complete), strict=True)
    means = [
        None if any(cell.failures for cell in study) else mean_over_tasks([cell.values for cell in study])
        for study in studies
    ]
    return median_of_studies(means, scale.higher_is_better)


def figures_of(row: Row, mean: Column | None, groups: Iterable[Group], scale: Scale) -> list[Figure]:
    """The row's figures in the order of the columns."""
    figures = []
    if mean is not None:
        figures.append(_mean_figure(row, mean, row.mean))
    for group in groups:
        if group.mean is not None:
            summary = mean_of(row, [task.task.name for task in group.tasks if task.counts], scale)
            figures.append(_mean_figure(row, group.mean, summary))
        for task in group.tasks:
            cell = row.cells.get(task.task.name)
            figures.append(_task_figure(task.headline, cell))
            for part in task.parts:
                summary = cell.part(part.label) if cell else None
                href = _run_href(cell.runs[0]) if cell and summary else None
                title = f"{part.title}: {_spelled(summary)}" if summary else ""
                figures.append(Figure(part, summary, href=href, title=title))
    return figures


def _mean_figure(row: Row, column: Column, summary: Summary | None) -> Figure:
    if summary is None:
        return Figure(column)
    return Figure(column, summary, href=row.href, title=f"{column.title}: {_spelled(summary)}")


def _task_figure(column: Column, cell: Cell | None) -> Figure:
    if cell is None:
        return Figure(column)
    failed = cell.failures or cell.runs
    reasons = [f"seed {run.spec.seed}: {_reason(run)}" for run in failed if run.status != "ok"]
    if cell.summary is None:
        return Figure(column, status=failed[0].status, href=_run_href(failed[0]), title="\n".join(reasons))
    ok = [run for run in cell.runs if run.quality is not None]
    lines = [column.title, _spelled(cell.summary)]
    if isinstance(cell, TunedCell):
        lines += [f"{_study(number, study, cell)}" for number, study in enumerate(cell.choices, 1)]
    else:
        lines += [
            f"seed {run.spec.seed}: {run.quality.test:.2f} on {exact(run.quality.n_test)}" for run in ok if run.quality
        ]
    return Figure(
        column,
        cell.summary,
        incomplete=bool(cell.failures),
        href=_run_href(ok[0]),
        title="\n".join(lines + (reasons if cell.failures else [])),
    )


def _study(number: int, study: Study, cell: TunedCell) -> str:
    """A study's line: its figure, and the trial that it chose with its settings."""
    name = f"study {number}" if not cell.search.missing else "final runs"
    settings = cell.search.settings(study.trial)
    values = ", ".join(
        f"{key.replace('_', ' ')} {digits(value) if isinstance(value, float) else plain(value)}"
        for key, value in settings.items()
    )
    figure = (
        "failed, counts as the worst" if study.failures else _spelled(study.summary) if study.summary else "not run"
    )
    return f"{name}: {figure}; trial {study.trial}, {values}"


def _reason(run: RunRecord) -> str:
    if run.error is None:
        return run.status
    return f"{run.status} in {run.error.phase}: {run.error.message}"


def _spelled(summary: Summary) -> str:
    seeds = "1 seed" if summary.n == 1 else f"{summary.n} seeds"
    figure = f"{summary.mean:.2f} {spread(summary.std)}".rstrip() + f", {seeds}"
    if not summary.studies:
        return figure
    each = ", ".join(f"{value:.2f}" if math.isfinite(value) else "failed" for value in summary.studies)
    return f"{figure}; the median of {len(summary.studies)} studies: {each}"


def _run_href(run: RunRecord) -> str:
    return f"run.html#{run.run_id}"

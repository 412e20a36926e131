"""A table seen from one of its tasks, and from its backbone: who is best there, and whether it holds elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...results import canonical_json
from ..configurations import grouped
from ..summary import Summary, ranks
from .table import Board, Row, Table, Track

MIN_SHARED = 5
"""Rows that two backbones must share before their orders are compared."""


@dataclass(frozen=True)
class Standing:
    """A row on one task."""

    row: Row
    summary: Summary
    rank: int | None
    """Among the table's ranked rows of its budget."""
    of: int


@dataclass(frozen=True)
class OnTask:
    """A table's rows on one task, the ranked ones first."""

    track: Track
    table: Table
    standings: list[Standing]

    @property
    def default(self) -> list[Standing]:
        """Ranked rows of one ranking: that without tuning, where there is one."""
        ranked = [standing for standing in self.standings if standing.rank is not None]
        return [standing for standing in ranked if standing.row.budget == ranked[0].row.budget]


def on_tasks(board: Board) -> dict[str, list[OnTask]]:
    """By task, in the order of the board's tables; tables without any figure on a task are left out."""
    found: dict[str, list[OnTask]] = {}
    for track in board.tracks:
        for table in track.tables:
            for task in table.tasks:
                standings = _standings(table, task.task.name)
                if standings:
                    found.setdefault(task.task.name, []).append(OnTask(track, table, standings))
    return found


def _standings(table: Table, task: str) -> list[Standing]:
    direction = 1 if table.scale.higher_is_better else -1
    figures = [(row, summary) for row in table.rows if (cell := row.cells.get(task)) and (summary := cell.summary)]
    ranked = grouped((pair for pair in figures if pair[0].rank is not None), lambda pair: pair[0].budget)
    standings = []
    for pairs in ranked.values():  # in the table's order: without tuning first
        of_each = ranks([direction * summary.mean for _, summary in pairs])
        of_budget = [
            Standing(row, summary, rank, len(pairs)) for (row, summary), rank in zip(pairs, of_each, strict=True)
        ]
        standings += sorted(of_budget, key=lambda standing: (standing.rank or 0, standing.row.label))
    others = [Standing(row, summary, None, 0) for row, summary in figures if row.rank is None]
    return standings + sorted(others, key=lambda standing: -direction * standing.summary.mean)


@dataclass(frozen=True)
class Agreement:
    """How the order of rows on one backbone agrees with that on another, on the tasks and rows that both have."""

    table: Table
    other: Table
    tau: float
    """Kendall's tau-b: 1 where both orders are the same, -1 where one is the other's reverse."""
    rows: int
    tasks: int


def agreements(tables: Sequence[Table], backbone: str) -> list[Agreement]:
    """Of a backbone's tables with those of other backbones of a track: same section, protocol and scale.

    Rows are the ranked ones without tuning, the same where method, version and configuration are; their figure is the
    mean over the tasks that both tables have. Tables that share fewer than `MIN_SHARED` rows are passed over, and those
    where all figures are equal.
    """
    from scipy.stats import kendalltau

    found = []
    for table in tables:
        for other in tables:
            if table.backbone.name != backbone or other.backbone.name == backbone or _kind(table) != _kind(other):
                continue
            tasks = sorted(_counted(table) & _counted(other))
            ours, theirs = _means(table, tasks), _means(other, tasks)
            shared = sorted(set(ours) & set(theirs))
            if not tasks or len(shared) < MIN_SHARED:
                continue
            tau = float(kendalltau([ours[key] for key in shared], [theirs[key] for key in shared]).statistic)
            if np.isfinite(tau):
                found.append(Agreement(table, other, tau, len(shared), len(tasks)))
    return sorted(found, key=lambda agreement: (-agreement.tau, agreement.other.name))


def _kind(table: Table) -> tuple[object, ...]:
    return table.track, table.section, table.protocol, table.protocol_version, table.scale


def _counted(table: Table) -> set[str]:
    return {task.task.name for task in table.tasks if task.counts}


def _means(table: Table, tasks: Iterable[str]) -> Mapping[tuple[str, int, bytes], float]:
    """Means of figures that are equal but for the order of additions are equal."""
    means = {}
    for row in table.rows:
        if row.rank is None or row.budget is not None:
            continue
        summaries = [row.cells[task].summary for task in tasks]
        values = [summary.mean for summary in summaries if summary]
        if len(values) == len(summaries) and values:
            identity = (row.method.name, row.version, canonical_json(row.config))
            means[identity] = round(float(np.mean(values)), 9)
    return means

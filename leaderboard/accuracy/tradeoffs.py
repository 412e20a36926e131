"""What a figure costs: the rows of one ranking as points, a figure against a measure, and those that no other beats."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..configurations import grouped
from ..subjects import families_in_order
from ..summary import Summary, ranks
from ..tuning.searches import Budget
from .measures import Measure, measures_of
from .table import Column, Row, Table

DECADE = 10.0


@dataclass(frozen=True)
class Point:
    row: Row
    x: float
    figure: Summary
    rank: int
    """By the figure, among all rows of the ranking, those without the measure included."""
    on_front: bool

    @property
    def label(self) -> str:
        """The row's, without the budget that all rows of the ranking share."""
        return " ".join((self.row.method.name, *settings_within_ranking(self.row)))


@dataclass(frozen=True)
class Tradeoff:
    """The rows of a table that are ranked among each other: a column's figure against a measure."""

    table: Table
    column: Column
    measure: Measure
    budget: Budget | None
    points: tuple[Point, ...]
    """By the measure, then the better figure first."""
    without: tuple[Row, ...]
    """Rows with the figure of which the measure is not known."""

    @property
    def key(self) -> str:
        """Unique in the site."""
        budget = self.budget
        return f"{self.table.key}-{budget.trials}-{budget.studies}-{budget.tuner}" if budget else self.table.key

    @cached_property
    def logarithmic(self) -> bool:
        return spans_decades(point.x for point in self.points)

    @property
    def families(self) -> list[tuple[str, str]]:
        return families_in_order((point.row.method.family, point.row.method.colour) for point in self.points)

    @property
    def figure_words(self) -> str:
        scale = self.table.scale
        lower = "" if scale.higher_is_better else ", lower is better"
        return f"{column_words(self.table, self.column)}, {scale.sign.strip()}{lower}"

    @property
    def ranking_words(self) -> str:
        return ranking_words(self.budget)


def settings_within_ranking(row: Row) -> list[str]:
    """What tells a row from its method's default, but for the budget."""
    return [*row.differences, *(badge for badge in row.badges if row.budget is None or badge != row.budget.badge)]


def ranking_words(budget: Budget | None) -> str:
    return f"tuned, {budget.words}{'' if budget.tuner == 'halton' else f' by {budget.tuner}'}" if budget else "default"


def column_words(table: Table, column: Column) -> str:
    """What a column's figures are, by itself."""
    kind, _, of = column.key.partition(":")
    if kind == "mean":
        return f"mean over {table.counted} tasks"
    return f"mean over {of} tasks" if kind == "group" else of


def first_column(table: Table) -> Column:
    """What a table is ranked by."""
    return table.mean or table.tasks[0].headline


def spans_decades(values: Iterable[float]) -> bool:
    """Whether an axis for values is better logarithmic; zero has a place of its own on one.

    >>> spans_decades([0.0, 1_000.0, 50_000.0]), spans_decades([0.3, 1.2])
    (True, False)
    """
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) >= DECADE * min(positive)


def front(places: Sequence[tuple[float, float]]) -> list[int]:
    """The Pareto front: the indices of the places (x, y) that no other beats, less x and more y being better.

    Of equal places all are on it; one that is beaten in x or y and equal in the other is not.

    >>> front([(10, 40), (1, 50), (10, 60), (100, 60), (10, 60)])
    [1, 2, 4]
    """
    best = float("-inf")
    members: list[int] = []
    order = sorted(range(len(places)), key=lambda index: places[index][0])
    for _, group in itertools.groupby(order, key=lambda index: places[index][0]):
        at_x = list(group)
        top = max(places[index][1] for index in at_x)
        if top > best:
            best = top
            members += [index for index in at_x if places[index][1] == top]
    return sorted(members)


def rankings(table: Table) -> dict[Budget | None, list[Row]]:
    """The ranked rows by their budget, those without tuning first."""
    return grouped((row for row in table.rows if row.state == "ranked"), lambda row: row.budget)


def tradeoff(table: Table, budget: Budget | None, column: Column, measure: Measure) -> Tradeoff:
    sign = 1 if table.scale.higher_is_better else -1
    found = [(row, figure.summary) for row in rankings(table).get(budget, []) for figure in row.figures
             if figure.column.key == column.key and figure.summary is not None]  # fmt: skip
    ranked = dict(zip((row.key for row, _ in found), ranks([sign * each.mean for _, each in found]), strict=True))
    known = [(row, x, summary) for row, summary in found if (x := measure.of(row)) is not None]
    # equal but for the order of additions is equal, as in ranks
    members = set(front([(x, round(sign * summary.mean, 9)) for _, x, summary in known]))
    points = [
        Point(row, x, summary, ranked[row.key], index in members) for index, (row, x, summary) in enumerate(known)
    ]
    return Tradeoff(
        table,
        column,
        measure,
        budget,
        tuple(sorted(points, key=lambda point: (point.x, -sign * point.figure.mean, point.label, point.row.key))),
        tuple(row for row, _ in found if measure.of(row) is None),
    )


def main_tradeoffs(table: Table) -> list[Tradeoff]:
    """For each of a table's rankings what it is ranked by against the first measure that any of its rows has."""
    charts = []
    for budget, rows in rankings(table).items():
        for measure in measures_of(rows)[:1]:
            chart = tradeoff(table, budget, first_column(table), measure)
            charts += [chart] if chart.points else []
    return charts

"""One ranking of a table, rows of one budget on the tasks that all of them finished, and what can be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...results.statistics import (
    MIN_TASKS,
    Against,
    Best,
    FirstPlaces,
    Friedman,
    Interval,
    Level,
    Nemenyi,
    Pairs,
    Scores,
    SignedRanks,
    Wins,
    Withheld,
    against_each,
    first_places,
    friedman,
    nemenyi,
    paired_differences,
    rank_ranges,
    scores_of,
    signed_ranks,
    win_matrix,
    within_noise_of_best,
)
from ..accuracy.table import Row, Table
from ..configurations import grouped
from ..tuning.searches import Budget


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranked rows, which all have finished all tasks that count."""

    table: Table
    budget: Budget | None
    rows: dict[str, Row]
    """By key, the first one first."""

    @property
    def key(self) -> str:
        return f"{self.table.key}-{self.budget.slug}" if self.budget else self.table.key

    @property
    def name(self) -> str:
        return f"{self.table.name} · {self.budget.badge}" if self.budget else self.table.name

    @cached_property
    def in_order(self) -> list[Row]:
        return sorted(self.rows.values(), key=lambda row: (row.rank or 0, row.label))

    @property
    def first(self) -> Row:
        return self.in_order[0]

    @cached_property
    def scores(self) -> Scores:
        """Of a tuned row, which is a median of studies, one figure a task."""
        tasks = [task.task.name for task in self.table.tasks if task.counts]
        figures = {
            key: {
                task: {0: cell.summary.mean} if self.budget and cell.summary else dict(cell.values)
                for task in tasks
                if (cell := row.cells.get(task)) is not None
            }
            for key, row in self.rows.items()
        }
        return scores_of(figures, self.table.scale.higher_is_better)

    @property
    def over(self) -> Level:
        """What is drawn anew: tasks where there are enough to stand for others, else seeds on these tasks alone."""
        return "tasks" if len(self.scores.tasks) >= MIN_TASKS else "seeds"

    @cached_property
    def best(self) -> Best | Withheld:
        return within_noise_of_best(self.scores, self.over)

    @cached_property
    def pairs(self) -> Pairs | Withheld:
        return paired_differences(self.scores, self.over)

    @cached_property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """The ranks that each row may have; empty where they are not known."""
        if isinstance(self.pairs, Withheld):
            return {}
        return dict(zip(self.pairs.methods, rank_ranges(self.pairs), strict=True))

    @cached_property
    def first_places(self) -> FirstPlaces | Withheld:
        return first_places(self.scores, self.over)

    def share_of_first(self, key: str) -> float | None:
        """Of the draws in which a row comes first."""
        found = self.first_places
        return None if isinstance(found, Withheld) else float(found.shares[found.methods.index(key)])

    @cached_property
    def wins(self) -> Wins:
        return win_matrix(self.scores)

    @cached_property
    def friedman(self) -> Friedman | Withheld:
        return friedman(self.scores)

    @cached_property
    def nemenyi(self) -> Nemenyi | Withheld:
        return nemenyi(self.scores)

    @cached_property
    def signed_ranks(self) -> SignedRanks | Withheld:
        return signed_ranks(self.scores)

    def against(self, key: str) -> Against | Withheld:
        return against_each(self.scores, key)

    def difference(self, one: str, other: str) -> Interval | None:
        return None if isinstance(self.pairs, Withheld) else self.pairs.interval(one, other)


def rankings_of(table: Table) -> list[Ranking]:
    """Those of a table that have two rows or more, without tuning first."""
    ranked = [row for row in table.rows if row.rank is not None]
    groups = grouped(ranked, lambda row: row.budget)
    return [Ranking(table, budget, {row.key: row for row in rows}) for budget, rows in groups.items() if len(rows) > 1]

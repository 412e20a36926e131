"""The board as data: tracks hold tables, tables rows, rows cells. How records become these is in `build`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ...results import RunRecord
from ...results.published import PublishedFigure
from ...results.statistics import Interval, Uncertainty
from ..costs.sheet import CostRow, Shape
from ..subjects import Subject, families_in_order, slug
from ..summary import Summary, median_of_studies, summarize
from ..tuning.searches import Budget, Search

if TYPE_CHECKING:
    from ..statistics.ranking import Ranking

State = Literal["ranked", "partial", "deviation", "superseded"]


@dataclass(frozen=True)
class Column:
    """One column of figures."""

    index: int
    kind: Literal["mean", "group", "task", "part"]
    key: str
    """Unique in the table, and the same in every table that has the column."""
    label: str
    title: str
    starts: bool = False
    """Whether a group begins here, which a rule shows."""


@dataclass(frozen=True, order=True)
class Scale:
    """What figures are measured in: no mean is taken and no rank given over two of them."""

    unit: str = "percent"
    higher_is_better: bool = True

    @property
    def sign(self) -> str:
        """Of the unit, behind a figure."""
        return "%" if self.unit == "percent" else f" {self.unit}"


@dataclass(frozen=True)
class TaskColumns:
    """A task's headline column, and one for each part of it (base and new classes, say)."""

    task: Subject
    version: int
    headline: Column
    parts: tuple[Column, ...]
    counts: bool
    """Whether a row must cover the task to be ranked."""


@dataclass(frozen=True)
class Group:
    name: str
    mean: Column | None
    tasks: tuple[TaskColumns, ...]

    @property
    def width(self) -> int:
        return (self.mean is not None) + sum(1 + len(task.parts) for task in self.tasks)


@dataclass(frozen=True)
class Cell:
    """The runs of one row on one task, one a seed."""

    runs: tuple[RunRecord, ...]

    @cached_property
    def values(self) -> dict[int, float]:
        """The headline figure by seed."""
        return {run.spec.seed: run.quality.test for run in self.runs if run.quality is not None}

    @cached_property
    def failures(self) -> tuple[RunRecord, ...]:
        """Runs without a figure; one that was cancelled says nothing about the method."""
        return tuple(run for run in self.runs if run.status not in ("ok", "cancelled"))

    @property
    def complete(self) -> bool:
        return bool(self.values) and not self.failures

    @cached_property
    def summary(self) -> Summary | None:
        return summarize(list(self.values.values())) if self.values else None

    def part(self, name: str) -> Summary | None:
        values = [run.quality.tests[name].value for run in self.runs if run.quality and name in run.quality.tests]
        return summarize(values) if values else None

    @property
    def studies(self) -> tuple[Cell, ...]:
        """What the mean over tasks is taken of: of a row that is not tuned, the cell itself."""
        return (self,)


@dataclass(frozen=True)
class Study(Cell):
    """What one study of a search chose for a task."""

    trial: int


@dataclass(frozen=True)
class TunedCell(Cell):
    """What a search chose for a task: the median of its studies, a study whose runs failed being the worst.

    `runs` has every final run once, though several studies may have chosen the same trial.
    """

    search: Search
    choices: tuple[Study, ...]
    """Where trials are missing, which study chose what is not known: one for each trial that has final runs."""

    @property
    def studies(self) -> tuple[Cell, ...]:
        return self.choices

    @property
    def complete(self) -> bool:
        """Whether all studies have chosen and been tested, and most of them did not fail."""
        tested = all(study.values or study.failures for study in self.choices)
        return not self.search.missing and tested and self.summary is not None

    @cached_property
    def summary(self) -> Summary | None:
        return self._median([(study, study.summary) for study in self.choices])

    def part(self, name: str) -> Summary | None:
        return self._median([(study, study.part(name)) for study in self.choices])

    def _median(self, studies: list[tuple[Study, Summary | None]]) -> Summary | None:
        known = [None if study.failures else summary for study, summary in studies if study.failures or summary]
        higher = all(run.quality.higher_is_better for run in self.runs if run.quality)
        return median_of_studies(known, higher) if known else None


@dataclass(frozen=True)
class Beside:
    """A published figure next to a measured one."""

    figure: PublishedFigure
    difference: float
    """Measured less published, in points."""


@dataclass
class Figure:
    """What stands where a row meets a column."""

    column: Column
    summary: Summary | None = None
    status: str | None = None
    """Why there is no number."""
    incomplete: bool = False
    """Some seeds failed, and the number is that of the others."""
    href: str | None = None
    """The runs behind it, from the site's root."""
    title: str = ""
    best: bool = False
    published: tuple[Beside, ...] = ()
    """Shown, never counted."""


@dataclass(frozen=True)
class Parameters:
    """Trainable parameters without the head; the median where they differ between runs."""

    median: int
    low: int
    high: int
    share: float | None
    """Of the backbone's own parameters."""


@dataclass
class Row:
    """One configuration of one method."""

    key: str
    """Unique in the site."""
    method: Subject
    version: int
    config: dict[str, Any]
    differences: tuple[str, ...]
    """How the configuration differs from the method's default, e.g. ``rank=16``."""
    badges: tuple[str, ...]
    state: State
    remark: str
    """Why the row is not ranked."""
    cells: dict[str, Cell]
    parameters: Parameters | None
    cost: CostRow | None
    """Of the same method, version and configuration on the same backbone."""
    budget: Budget | None = None
    """Of a tuned row, whose configuration differs from task to task."""
    default: Row | None = None
    """Of a tuned row: that of the configuration which its trials begin with, not tuned."""
    figures: list[Figure] = field(default_factory=list)
    mean: Summary | None = None
    uncertainty: Uncertainty | None = None
    """Of the mean; None of a tuned row, which has the range of its studies."""
    rank: int | None = None
    near_best: bool = False
    """Whether it is not the first, and not told apart from the best."""
    ranks: tuple[int, int] | None = None
    """Those that it may have, as far as the figures tell."""

    @property
    def runs(self) -> list[RunRecord]:
        return [run for cell in self.cells.values() for run in cell.runs]

    @property
    def attempted(self) -> int:
        """How many runs there are, but for those that were cancelled."""
        return sum(run.status != "cancelled" for run in self.runs)

    @property
    def succeeded(self) -> int:
        return sum(run.status == "ok" for run in self.runs)

    @property
    def hardware(self) -> list[str]:
        return sorted({run.env.hardware_class for run in self.runs})

    @property
    def interval(self) -> Interval | None:
        """Of the mean, on these tasks; None where there is one seed, or where it is not known for other reasons."""
        interval = self.uncertainty.interval if self.uncertainty else None
        return interval if isinstance(interval, Interval) else None

    @property
    def label(self) -> str:
        return " ".join((self.method.name, *self.differences, *self.badges))

    @property
    def href(self) -> str:
        return f"methods/{self.method.slug}.html#{self.key}"

    @property
    def tuned_cells(self) -> dict[str, TunedCell]:
        return {task: cell for task, cell in self.cells.items() if isinstance(cell, TunedCell)}

    @property
    def gain(self) -> float | None:
        """Of tuning, over the default, in the unit of the mean over tasks; None where one of both has none."""
        if self.mean is None or self.default is None or self.default.mean is None:
            return None
        return self.mean.mean - self.default.mean.mean


@dataclass
class Table:
    key: str
    """Unique in the site."""
    track: str
    backbone: Subject
    weights: tuple[str, ...]
    protocol: str
    protocol_version: int
    section: str
    """The group of tasks that it is for; empty where it is for all of the track."""
    scale: Scale
    mean: Column | None
    groups: tuple[Group, ...]
    rows: list[Row]
    seeds: int
    """The largest number of seeds behind a figure."""
    notes: list[str]
    cost_shape: Shape | None
    """The input for which the rows' costs are; None where no row has any."""

    @property
    def tasks(self) -> list[TaskColumns]:
        return [task for group in self.groups for task in group.tasks]

    @property
    def has_parts(self) -> bool:
        return any(task.parts for task in self.tasks)

    @property
    def counted(self) -> int:
        return sum(task.counts for task in self.tasks)

    def ranked(self, budget: Budget | None) -> int:
        """How many rows are ranked among those that had a budget for tuning, or none."""
        return sum(row.rank is not None and row.budget == budget for row in self.rows)

    @property
    def hardware(self) -> list[str]:
        return sorted({hardware for row in self.rows for hardware in row.hardware})

    @property
    def families(self) -> list[tuple[str, str]]:
        """Name and colour of the families in the table."""
        return families_in_order({(row.method.family, row.method.colour) for row in self.rows})

    @property
    def columns(self) -> list[tuple[str, Column]]:
        """Those of figures, with the name of the group that each stands in, empty for the mean over all tasks."""
        columns = [("", self.mean)] if self.mean else []
        for group in self.groups:
            columns += [(group.name, group.mean)] if group.mean else []
            for task in group.tasks:
                columns += [(group.name, column) for column in (task.headline, *task.parts)]
        return columns

    @property
    def name(self) -> str:
        """What tells it from the track's other tables."""
        section = f" · {self.section}" if self.section else ""
        return f"{self.backbone.name} · {self.protocol_name}{section}"

    @property
    def protocol_name(self) -> str:
        return f"{self.protocol}, version {self.protocol_version}"


@dataclass(frozen=True)
class Track:
    key: str
    title: str
    tables: list[Table]
    first: bool
    """Whether it is the one that the site opens with."""

    @property
    def page(self) -> str:
        return "index.html" if self.first else f"track-{slug(self.key)}.html"

    @property
    def families(self) -> list[tuple[str, str]]:
        return families_in_order({family for table in self.tables for family in table.families})


@dataclass(frozen=True)
class Position:
    """Where a run stands on the board."""

    table: Table
    row: Row
    cell: Cell


@dataclass(frozen=True)
class Board:
    tracks: list[Track]
    rankings: list[Ranking]
    left_out: dict[str, str]
    """Run ids that stand in no table, with the reason."""
    searches: dict[str, Search]
    """By their key."""

    @cached_property
    def positions(self) -> dict[str, Position]:
        return {
            run.run_id: Position(table, row, cell)
            for track in self.tracks
            for table in track.tables
            for row in table.rows
            for cell in row.cells.values()
            for run in cell.runs
        }

    @cached_property
    def search_of(self) -> dict[str, Search]:
        """By the id of a run of it."""
        return {run.run_id: search for search in self.searches.values() for run in search.records}

"""What the page on tuning shows: the sensitivity of methods to it, and how much of a ranking is its luck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from statistics import fmean, stdev

import numpy as np

from ..accuracy.sorting import section_of
from ..accuracy.table import Board, Row, Scale
from ..configurations import anchor, differences, grouped
from ..subjects import TRACKS, Subject, Subjects, families_in_order, place
from ..summary import ranks
from .searches import Budget, Search
from .sensitivity import Figures, band, changed_pairs, expected_best, trials_needed, with_failures


@dataclass(frozen=True)
class TaskSearch:
    """A search all of whose trials are there.

    Attributes:
        values: validation figures by trial, what failed in its place among the worst; empty where all failed.
    """

    task: Subject
    search: Search
    scale: Scale
    values: tuple[float, ...]
    gain: float | None
    """Of the tuned cell over the default's, where both are complete."""

    @property
    def done(self) -> list[float]:
        return [run.trial.validation for run in self.search.trials.values() if run.trial]

    @property
    def failed(self) -> int:
        return len(self.search.trials) - len(self.done)

    @property
    def best(self) -> float:
        return max(self.values) if self.scale.higher_is_better else min(self.values)

    @property
    def worst(self) -> float:
        """Of those that did not fail."""
        return min(self.done) if self.scale.higher_is_better else max(self.done)

    @property
    def deviation(self) -> float | None:
        return stdev(self.done) if len(self.done) > 1 else None

    @property
    def needed(self) -> float | None:
        """None where figures have no points to be close in."""
        if self.scale.unit != "percent":
            return None
        return trials_needed(self.values if self.scale.higher_is_better else [-value for value in self.values])

    @property
    def seconds(self) -> float:
        """Of all trials, all that they took."""
        times = [run.time_s for run in self.search.trials.values()]
        return sum(time.setup + time.data + time.train + time.evaluation + time.tuning for time in times)

    @property
    def in_training(self) -> list[float]:
        """Seconds of training and evaluation by trial: the first run of a worker has more to set up."""
        times = [run.time_s for _, run in sorted(self.search.trials.items())]
        return [time.train + time.evaluation + time.tuning for time in times]


@dataclass(frozen=True)
class Sensitivity:
    """One method, under one budget, on its tasks; figures are means over them."""

    method: Subject
    label: str
    row: Row | None
    tasks: tuple[TaskSearch, ...]
    under_way: int
    """Searches that lack trials."""

    @property
    def measured(self) -> list[TaskSearch]:
        return [task for task in self.tasks if task.values]

    @cached_property
    def figures(self) -> Figures:
        """(tasks, trials), the larger the better."""
        sign = 1 if self.tasks[0].scale.higher_is_better else -1
        return sign * np.array([task.values for task in self.measured])

    @property
    def steps(self) -> int:
        """Up to how many trials an expected best is shown: beyond a half of them the estimator is of little worth."""
        return max(1, self.figures.shape[1] // 2)

    @cached_property
    def curve(self) -> list[float]:
        return self._sign(expected_best(self.figures, self.steps).mean(axis=0))

    @cached_property
    def band(self) -> tuple[list[float], list[float]]:
        low, high = band(self.figures, self.steps)
        return self._sign(low), self._sign(high)

    def _sign(self, values: Figures) -> list[float]:
        return [float(value) if self.tasks[0].scale.higher_is_better else -float(value) for value in values]

    @property
    def best(self) -> float:
        return fmean(task.best for task in self.measured)

    @property
    def needed(self) -> float | None:
        known = [task.needed for task in self.measured if task.needed is not None]
        return fmean(known) if known else None

    @property
    def deviation(self) -> float | None:
        known = [task.deviation for task in self.measured if task.deviation is not None]
        return fmean(known) if known else None

    @property
    def worst(self) -> float | None:
        known = [task.worst for task in self.tasks if task.done]
        return fmean(known) if known else None

    @property
    def failed(self) -> float:
        return sum(task.failed for task in self.tasks) / sum(len(task.search.trials) for task in self.tasks)

    @property
    def gains(self) -> list[float]:
        return [task.gain for task in self.tasks if task.gain is not None]

    @property
    def gain(self) -> float | None:
        return fmean(self.gains) if self.gains else None

    @property
    def seconds(self) -> float:
        return sum(task.seconds for task in self.tasks)

    @property
    def times_default(self) -> float | None:
        """Training and evaluation of all trials over those of the first, the default; None where that failed."""
        if any(task.search.trials[0].trial is None for task in self.tasks):
            return None
        return sum(sum(task.in_training) for task in self.tasks) / sum(task.in_training[0] for task in self.tasks)


@dataclass(frozen=True)
class Order:
    """Methods by one of several figures that each has.

    Attributes:
        values: by method's label; what failed is infinitely bad.
        ranks: of those that did not fail.
        changed: pairs of methods that stand in the opposite order by the median of the studies, and all pairs of both.
    """

    name: str
    values: Mapping[str, float]
    ranks: Mapping[str, int]
    changed: tuple[int, int]

    @property
    def first(self) -> list[str]:
        return [label for label, rank in self.ranks.items() if rank == 1]


@dataclass(frozen=True)
class Luck:
    """The ranking without tuning, by each study alone, and as on the board."""

    methods: tuple[tuple[str, Row], ...]
    default: Order | None
    studies: tuple[Order, ...]
    """Each alone; none where there is one only."""
    tuned: Order
    """By the median of the studies."""

    @property
    def rankings(self) -> list[Order]:
        return [*([self.default] if self.default else []), *self.studies, self.tuned]

    @property
    def other_firsts(self) -> int:
        """Studies alone by which other methods are first than by their median."""
        return sum(study.first != self.tuned.first for study in self.studies)

    @property
    def changed(self) -> float:
        """The share of pairs that a study alone puts in another order than the median of all does."""
        return fmean(study.changed[0] / study.changed[1] for study in self.studies)


@dataclass(frozen=True)
class Tuned:
    """All searches of one budget on one backbone, under one protocol."""

    track: str
    backbone: Subject
    protocol: str
    section: str
    budget: Budget
    scale: Scale
    methods: tuple[Sensitivity, ...]
    """Those with a search that has all its trials."""
    under_way: int
    luck: Luck | None
    other_data: bool
    """Whether the default rows' runs were trained on less data than the tuned ones."""
    key: str

    @cached_property
    def tasks(self) -> list[str]:
        """That any method has a measured search on."""
        return sorted({task.task.name for method in self.methods for task in method.measured})

    @property
    def comparable(self) -> list[Sensitivity]:
        """Methods that have one on all of them."""
        return [method for method in self.methods if len(method.measured) == len(self.tasks) > 0]

    @property
    def families(self) -> list[tuple[str, str]]:
        return families_in_order({(method.method.family, method.method.colour) for method in self.methods})


def make_overview(board: Board, subjects: Subjects) -> list[Tuned]:
    """The searches of a board in the order of its tables."""
    tables = [table for track in board.tracks for table in track.tables]
    rows = {
        cell.search.key: row for table in tables for row in table.rows for cell in row.tuned_cells.values()
    }  # of one search on the board
    scales = _scales(board.searches.values())

    def key(search: Search) -> tuple[int, str, str, str, str, str, Budget, Scale]:
        spec = search.first.spec
        track = subjects.tasks[spec.task.name].track
        changed = [f"{name}={value}" for name, value in sorted(spec.protocol.overrides.items())]
        protocol = ", ".join([f"{spec.protocol.name}, version {spec.protocol.version}", *changed])
        where = spec.backbone.name, spec.backbone.weights, protocol, section_of(search.first, subjects)
        return (place(track, tuple(TRACKS)), track, *where, search.budget, scales[search.key])

    overview = []
    for (_, track, backbone, weights, protocol, section, budget, scale), searches in sorted(
        grouped(board.searches.values(), key).items()
    ):
        by_method = grouped(searches, lambda s: (s.first.spec.method.name, s.first.spec.method.version, s.row))
        named = {
            identity: _label(group[0], subjects, by_method) for identity, group in by_method.items()
        }  # of what has the same label both are told apart by their version
        made = [
            _sensitivity(named[identity], group, rows, scale, subjects) for identity, group in sorted(by_method.items())
        ]
        standing = [(each.label, each.row) for each in made if each.row and each.row.mean]
        overview.append(
            Tuned(
                track=track,
                backbone=subjects.backbones[backbone],
                protocol=protocol,
                section=section,
                budget=budget,
                scale=scale,
                methods=tuple(each for each in made if each.tasks),
                under_way=sum(each.under_way for each in made),
                luck=_luck(standing, scale) if len(standing) > 1 else None,
                other_data=any(
                    run.quality is not None and run.quality.validation is not None
                    for each in made
                    if each.row and each.row.default
                    for run in each.row.default.runs
                ),
                key=anchor("tuned", track, backbone, weights, protocol, section, budget.badge, budget.studies),
            )
        )
    return overview


def _scales(searches: Iterable[Search]) -> dict[str, Scale]:
    """What the figures of each search are measured in: as others on its task where none of its trials has one."""
    searches = list(searches)
    figures = [(search, run.trial) for search in searches for run in search.trials.values() if run.trial]
    by_task = {search.first.spec.task.name: Scale(trial.unit, trial.higher_is_better) for search, trial in figures}
    return {search.key: by_task.get(search.first.spec.task.name, Scale()) for search in searches}


def _label(search: Search, subjects: Subjects, others: Iterable[tuple[str, int, bytes]]) -> str:
    method = search.first.spec.method
    versions = {version for name, version, _ in others if name == method.name}
    changed = differences(search.fixed, subjects.methods[method.name].defaults or search.fixed)
    return " ".join([method.name, *changed, *([f"v{method.version}"] if len(versions) > 1 else [])])


def _sensitivity(
    label: str, searches: Sequence[Search], rows: Mapping[str, Row], scale: Scale, subjects: Subjects
) -> Sensitivity:
    searches = sorted(searches, key=lambda search: search.first.spec.task.name)
    tasks = []
    for search in searches:
        if search.missing:
            continue
        task = subjects.tasks[search.first.spec.task.name]
        sign = 1 if scale.higher_is_better else -1
        in_order = [search.trials[index].trial for index in sorted(search.trials)]
        figures = [None if trial is None else sign * trial.validation for trial in in_order]
        values = with_failures(figures, task.chance if scale == Scale() else None) or []
        row = rows.get(search.key)
        tasks.append(TaskSearch(task, search, scale, tuple(sign * value for value in values), _gain(row, task.name)))
    row = next((rows[search.key] for search in searches if search.key in rows), None)
    method = subjects.methods[searches[0].first.spec.method.name]
    return Sensitivity(method, label, row, tuple(tasks), sum(bool(search.missing) for search in searches))


def _gain(row: Row | None, task: str) -> float | None:
    """Of a tuned row over the default's on one task."""
    cells = [each.cells.get(task) if each else None for each in (row, row and row.default)]
    known = [cell.summary.mean for cell in cells if cell and cell.complete and cell.summary]
    return known[0] - known[1] if len(known) == 2 else None


def _luck(standing: Sequence[tuple[str, Row]], scale: Scale) -> Luck:
    """Of at least two rows that have a mean."""
    sign = 1 if scale.higher_is_better else -1
    median = {label: row.mean.mean for label, row in standing if row.mean}
    defaults = {label: row.default.mean.mean for label, row in standing if row.default and row.default.mean}
    named = [("default", defaults)]
    studies = max(len(row.mean.studies) for _, row in standing if row.mean)
    for index in range(studies):
        named.append((f"study {index + 1}", {label: row.mean.studies[index] for label, row in standing if row.mean}))
    named.append(("median" if studies else "tuned", median))
    rankings = []
    for name, values in named:
        if len(values) < 2:
            continue
        own, last = ([sign * each[label] for label in values] for each in (values, median))
        places = {label: rank for label, rank in zip(values, ranks(own), strict=True) if isfinite(values[label])}
        rankings.append(Order(name, values, places, changed_pairs(own, last)))
    methods = tuple(sorted(standing, key=lambda item: (rankings[-1].ranks[item[0]], item[0])))
    default = rankings[0] if rankings[0].name == "default" else None
    return Luck(methods, default, tuple(rankings[1 if default else 0 : -1]), rankings[-1])

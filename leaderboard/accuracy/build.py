"""Records to tables: one per track, backbone and protocol, a row per method configuration, a cell per task.

The rules of the ranking live here:

- A cell is the mean over seeds of one configuration on one task. A seed that failed makes the cell incomplete.
- A row is ranked if all its cells are complete, by the unweighted mean over the table's tasks. A task counts where at
  least one undeviating run on it succeeded.
- Runs that depart from the protocol have rows of their own, which are not ranked; so have older versions of a method.
- What a search chose has a row of its own, ranked among rows of the same budget (see `tuned`); trials have none.

Which runs stand in a table together is in `sorting`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any, Literal

import msgspec

from ...results import FAITHFUL, RunRecord, canonical_json
from ...results.statistics import Withheld
from ...results.tuning import search_key, tuning_of
from ..configurations import anchor, common_config, common_settings, differences, grouped
from ..costs.sheet import CostRow, Efficiency
from ..formatting import figure, plain
from ..statistics.ranking import Ranking, rankings_of
from ..statistics.uncertainty import uncertainty_of
from ..subjects import GROUPS, TRACKS, Subject, Subjects, place
from ..summary import ranks
from ..tuning.searches import Search, make_searches
from .figures import figures_of, mean_of
from .sorting import by_table, comparable, scales_of, section_of
from .table import Board, Cell, Column, Group, Parameters, Row, Scale, State, Table, TaskColumns, Track
from .tuned import tuned_cell, why_partial

_RowKey = tuple[str, int, bytes, int, bool, str]
"""Method, its version, its configuration, a trial without a search, random weights, the departure from a protocol."""

_STATES: tuple[State, ...] = ("ranked", "partial", "superseded", "deviation")


def make_board(records: Iterable[RunRecord], subjects: Subjects, efficiency: Efficiency) -> Board:
    """Sort records into tables and rank their rows; where a row's cost is known, it is put beside it."""
    records = sorted(records, key=_order)
    searches, left_out = make_searches(records)
    common = {
        name: common_config(run.spec.method.config for run in _not_tuned(runs))
        for name, runs in grouped(records, lambda run: run.spec.method.name).items()
    }
    defaults = {name: subjects.methods[name].defaults or config for name, config in common.items()}
    tracks: list[Track] = []
    rankings: list[Ranking] = []
    tested = [run for run in records if not run.spec.is_trial]
    by_track = grouped(tested, lambda run: subjects.tasks[run.spec.task.name].track)
    for key in sorted(by_track, key=lambda key: (place(key, tuple(TRACKS)), key)):
        tables = []
        scales = scales_of(by_track[key])
        for runs in by_table(by_track[key], subjects, scales):
            kept, reasons = comparable(runs)
            reasons |= {run.run_id: left_out[run.run_id] for run in kept if run.run_id in left_out}
            left_out |= reasons
            kept = [run for run in kept if run.run_id not in reasons]
            if not kept:
                continue
            scale = scales[runs[0].spec.task.name]
            table, of_table = _table(key, scale, kept, reasons, subjects, defaults, efficiency, searches)
            tables.append(table)
            rankings += of_table
        if tables:
            title = TRACKS.get(key, key.replace("_", " ").capitalize())
            tracks.append(Track(key, title, tables, first=not tracks))
    return Board(tracks, rankings, left_out, searches)


def _not_tuned(runs: Sequence[RunRecord]) -> Sequence[RunRecord]:
    """Of a method's runs, those that no search has set, where there are any."""
    return [run for run in runs if tuning_of(run.spec) is None or run.spec.trial == 0] or runs


def _order(run: RunRecord) -> tuple[str, str, str, int, str]:
    spec = run.spec
    return (spec.task.name, spec.backbone.name, spec.method.name, spec.seed, run.run_id)


def _deviation(run: RunRecord) -> str:
    """What departs from the protocol, the empty string where nothing does.

    Of a faithful preset, what holds for all of its tasks: its settings differ from task to task.
    """
    if run.spec.protocol.faithful:
        return run.protocol_deviation or FAITHFUL
    overrides = [f"{key}={plain(value)}" for key, value in sorted(run.spec.protocol.overrides.items())]
    stated = run.protocol_deviation or ""
    return "; ".join([*overrides, *([stated] if stated else [])])


def _table(
    track: str,
    scale: Scale,
    runs: list[RunRecord],
    reasons: Mapping[str, str],
    subjects: Subjects,
    defaults: Mapping[str, Mapping[str, Any]],
    efficiency: Efficiency,
    searches: Mapping[str, Search],
) -> tuple[Table, list[Ranking]]:
    spec = runs[0].spec
    backbone = subjects.backbones[spec.backbone.name]
    weights = tuple(sorted({run.spec.backbone.weights for run in runs}))
    section = section_of(runs[0], subjects)
    of_scale = () if scale == Scale() else (scale.unit, scale.higher_is_better)
    identity = (
        *(track, backbone.name, *weights, spec.protocol.name, spec.protocol.version),
        *([section] * bool(section)),
        *of_scale,
    )
    sheet = efficiency.main_sheet(backbone.name)
    costs = sheet.by_method if sheet else {}
    rows = _rows(runs, identity, subjects, defaults, _size(runs, backbone), costs, searches)
    mean, groups = _columns(runs, rows, subjects, scale)
    counted = [task.task.name for group in groups for task in group.tasks if task.counts]
    for row in rows:
        covered = [name for name in counted if name in row.cells and row.cells[name].complete]
        if row.state == "ranked" and len(covered) < len(counted):
            covers = f"covers {len(covered)} of {len(counted)} tasks"
            row.state, row.remark = "partial", "; ".join([f"not ranked: {covers}", *filter(None, [why_partial(row)])])
        row.mean = mean_of(row, counted, scale)
        row.uncertainty = uncertainty_of(row, counted)
        if row.state == "ranked" and row.mean is None:
            row.state, row.remark = "partial", "not ranked: most of its studies failed on some task"
        row.figures = figures_of(row, mean, groups, scale)
    _rank(rows, scale)
    table = Table(
        key=anchor("table", *identity),
        track=track,
        backbone=backbone,
        weights=weights,
        protocol=spec.protocol.name,
        protocol_version=spec.protocol.version,
        section=section,
        scale=scale,
        mean=mean,
        groups=groups,
        rows=rows,
        seeds=max((figure.summary.n for row in rows for figure in row.figures if figure.summary), default=0),
        notes=_notes(runs, reasons),
        cost_shape=sheet.shape if sheet and any(row.cost for row in rows) else None,
    )
    for ranking in (rankings := rankings_of(table)):
        best = () if isinstance(ranking.best, Withheld) else ranking.best.methods
        for key, row in ranking.rows.items():
            row.near_best = key in best and row is not ranking.first
            row.ranks = ranking.ranges.get(key)
    return table, rankings


def _size(runs: Iterable[RunRecord], backbone: Subject) -> float | None:
    """A backbone's own parameters: as its card says, or those of the smallest model without its head built on it."""
    without_head = [
        run.params.total - run.params.trainable + run.params.trainable_without_head for run in runs if run.params
    ]
    return backbone.number("parameters") or min(without_head, default=None)


def _rows(
    runs: Sequence[RunRecord],
    table: tuple[Any, ...],
    subjects: Subjects,
    defaults: Mapping[str, Mapping[str, Any]],
    size: float | None,
    costs: Mapping[tuple[str, int, bytes], CostRow],
    searches: Mapping[str, Search],
) -> list[Row]:
    """A row for each configuration of each version of a method, for each departure from the protocol, each budget."""
    mixed = len({run.spec.backbone.weights for run in runs}) > 1
    methods = grouped(runs, lambda run: run.spec.method.name)
    versions = {name: sorted({run.spec.method.version for run in group}) for name, group in methods.items()}

    spelled: dict[bytes, bytes] = {}  # most runs have a configuration that others have

    def canonical(config: Mapping[str, Any]) -> bytes:
        written = msgspec.json.encode(config)
        if written not in spelled:
            spelled[written] = canonical_json(config)
        return spelled[written]

    def key(run: RunRecord) -> _RowKey:
        method, random = run.spec.method, mixed and run.spec.backbone.weights == "random"
        config = {} if run.spec.protocol.faithful else method.config  # a recipe sets what it likes for each task
        search = search_of(run)
        what, trial = (search.row, 0) if search else (canonical(config), run.spec.trial)
        return (method.name, method.version, what, trial, random, _deviation(run))

    def search_of(run: RunRecord) -> Search | None:
        return None if tuning_of(run.spec) is None else searches[search_key(run.spec)]

    rows: dict[_RowKey, Row] = {}
    untuned: dict[_RowKey, _RowKey] = {}
    for (name, version, config, trial, random, deviation), group in grouped(runs, key).items():
        faithful, search = group[0].spec.protocol.faithful, search_of(group[0])
        badges = [search.budget.badge] if search else [f"trial {trial}"] if trial else []
        badges += ["random weights"] if random else []
        badges += [f"v{version}"] if len(versions[name]) > 1 else []
        state: State = "ranked"
        remark = ""
        if version != versions[name][-1]:
            state, remark = "superseded", f"not ranked: the method is at version {versions[name][-1]}"
        if deviation:
            state, remark = "deviation", f"not ranked: departs from the protocol ({deviation})"
            badges.append(FAITHFUL if faithful else "deviation")
        cells = {}
        for task, of_task in grouped(group, lambda run: run.spec.task.name).items():
            its_search = search_of(of_task[0])
            in_order = tuple(sorted(of_task, key=lambda run: run.spec.seed))
            cells[task] = tuned_cell(its_search, of_task) if its_search else Cell(in_order)
        settings = search.fixed if search else common_settings([run.spec.method.config for run in group])
        default = config  # what is searched changes nothing that costs
        if search and 0 in search.trials:
            default = canonical_json(search.trials[0].spec.method.config)
            untuned[name, version, config, trial, random, deviation] = name, version, default, 0, random, deviation
        rows[name, version, config, trial, random, deviation] = Row(
            key=anchor("row", *table, name, version, config.decode(), trial, random, deviation),
            method=subjects.methods[name],
            version=version,
            config=settings,
            differences=() if faithful else differences(settings, defaults[name]),
            badges=tuple(badges),
            state=state,
            remark=remark,
            cells=cells,
            parameters=_parameters(group, size),
            cost=None if faithful else costs.get((name, version, default)),
            budget=search.budget if search else None,
        )
    for tuned, of_default in untuned.items():
        rows[tuned].default = rows.get(of_default)
    return list(rows.values())


def _parameters(runs: Iterable[RunRecord], size: float | None) -> Parameters | None:
    values = sorted(run.params.trainable_without_head for run in runs if run.params and run.status == "ok")
    if not values:
        return None
    median = values[len(values) // 2]
    return Parameters(median, values[0], values[-1], median / size if size else None)


def _columns(
    runs: Sequence[RunRecord], rows: Sequence[Row], subjects: Subjects, scale: Scale
) -> tuple[Column | None, tuple[Group, ...]]:
    """The overall mean, where there is more than one task, and the tasks in their groups."""
    of_task = grouped(runs, lambda run: run.spec.task.name)
    versions = {name: group[0].spec.task.version for name, group in of_task.items()}
    standard = {
        name for row in rows if row.state == "ranked" for name, cell in row.cells.items() if cell.summary
    } or set(versions)
    index = 0

    def column(
        kind: Literal["mean", "group", "task", "part"], of: str, label: str, title: str, starts: bool = False
    ) -> Column:
        nonlocal index
        index += 1
        return Column(index - 1, kind, f"{kind}:{of}" if of else kind, label, title, starts)

    mean = column("mean", "", "Mean", f"unweighted mean over {len(standard)} tasks") if len(standard) > 1 else None
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(versions):
        names[subjects.tasks[name].family].append(name)
    groups = []
    for group in sorted(names, key=lambda group: (place(group, GROUPS), group)):
        members = names[group]
        several = len(names) > 1 and sum(name in standard for name in members) > 1
        group_mean = (
            column("group", group, "mean", f"unweighted mean over the {group} tasks", True) if several else None
        )
        tasks: list[TaskColumns] = []
        for name in members:
            metric, parts = _parts(of_task[name])
            task = subjects.tasks[name]
            chance = f", chance {figure(task.chance)}" if task.chance is not None else ""
            label, starts = (metric if parts else task.short), bool(parts) or not (tasks or group_mean)
            headline = column("task", name, label, f"{name}: {metric} in {scale.unit}{chance}", starts)
            columns = tuple(
                column("part", f"{name}:{part}", part, f"{name}: {part}, in {scale.unit}") for part in parts
            )
            tasks.append(TaskColumns(task, versions[name], headline, columns, name in standard))
        groups.append(Group(group, group_mean, tuple(tasks)))
    return mean, tuple(groups)


def _parts(runs: Iterable[RunRecord]) -> tuple[str, list[str]]:
    """The headline's name, and those of the test figures that are not the headline again."""
    qualities = [run.quality for run in runs if run.quality is not None]
    metrics = sorted({quality.metric for quality in qualities})
    metric = (
        "H" if metrics and metrics[0].lower().startswith("harmonic") else (metrics or ["test"])[0].replace("_", " ")
    )
    names = list(dict.fromkeys(name for quality in qualities for name in quality.tests))
    if len(names) < 2:
        return metric, []
    same = [name for name in names if all(q.tests[name].value == q.test for q in qualities if name in q.tests)]
    parts = [name for name in names if name not in same[:1]]
    return (same[0] if same else metric), parts


def _rank(rows: list[Row], scale: Scale) -> None:
    """Give ranks and mark the best of each column, both among rows of one budget, and put rows in the table's order.

    Rows without tuning come first, then those of each budget.
    """
    direction = 1 if scale.higher_is_better else -1
    all_ranked = [row for row in rows if row.state == "ranked" and row.mean is not None]
    for ranked in grouped(all_ranked, lambda row: row.budget).values():
        for row, rank in zip(ranked, ranks([direction * row.mean.mean for row in ranked if row.mean]), strict=True):
            row.rank = rank
        for column in zip(*(row.figures for row in ranked), strict=True):
            shown = [figure(cell.summary.mean) for cell in column if cell.summary]
            best = max(shown, key=lambda text: direction * float(text), default=None)
            for cell in column:
                cell.best = cell.summary is not None and figure(cell.summary.mean) == best
    covered = {row.key: sum(cell.complete for cell in row.cells.values()) for row in rows}
    rows.sort(
        key=lambda row: (
            _STATES.index(row.state),
            astuple(row.budget) if row.rank and row.budget else (),
            row.rank or 0,
            -covered[row.key] if row.state == "partial" else 0,
            row.method.name,
            row.label,
            row.key,
        )
    )


def _notes(runs: Iterable[RunRecord], reasons: Mapping[str, str]) -> list[str]:
    """What a reader of the table must know about the data behind it."""
    notes = [f"{n} run{'s' * (n > 1)} left out: {reason}." for reason, n in sorted(Counter(reasons.values()).items())]
    data: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # a split's hash covers the draw of a seed
    for run in runs:
        if run.env.data_sha256 is not None:
            data[run.spec.task.name, run.spec.task.split_sha256].add(run.env.data_sha256)
    differing = sorted({name for (name, _), hashes in data.items() if len(hashes) > 1})
    notes += [
        f"The runs on {name} do not all have the same pixels and labels (data_sha256 differs)." for name in differing
    ]
    return notes

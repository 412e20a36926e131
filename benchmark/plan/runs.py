"""From what the user asked for to a list of specs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from ...backbones.anatomy.quantized import check_held
from ...errors import PeftmarkError
from ...registry import METHODS, TASKS
from ...results import (
    FAITHFUL,
    CostSpec,
    RunSpec,
)
from ...results.store import no_garbage_collection
from ...results.tuning import number_of_trials
from ..tuning.optuna_search import note
from ..tuning.search import Search
from .costs import suite_costs
from .preset import CHANGED, Settings, load_presets
from .protocol import Protocol, load_protocol
from .specs import Specs
from .suite import Budget, Suite, find_suite, narrowed


@dataclass
class Request:
    """What ``peftmark run`` was asked for; empty selections mean the suite's own.

    Attributes:
        preset: ``faithful`` runs methods as their official repositories do, where these say how.
        hardware_class: of the GPU on which profiles are measured; None estimates them.
        progress: called now and then with how many runs are planned, and of how many.
        trials, studies, tuner: tune every method with this budget, in place of the suite's own (see `Budget`).
        partial: whether runs whose data or weights are not there are left out of the plan, which then lists them.

    Raises (when planned):
        PeftmarkError: on unknown names and settings, with the nearest known ones.
    """

    suite: str | None = None
    methods: Sequence[str] = ()
    backbones: Sequence[str] = ()
    tasks: Sequence[str] = ()
    seeds: Sequence[int] = ()
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    protocol_settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = "embedded-v1"
    preset: str = ""
    hardware_class: str | None = None
    partial: bool = False
    trials: int | None = None
    studies: int | None = None
    tuner: str | None = None
    progress: Callable[[int, int], None] = lambda done, total: None


Spec = RunSpec | CostSpec


Stage = Literal["trial", "final"] | None
"""Of a search; None of any other run."""


class Wanted(NamedTuple):
    """A kind of run.

    Attributes:
        epochs: what its method's phases are, in the protocol's epochs.
        watched: whether it is measured on the validation split after every epoch.
    """

    task: str
    epochs: float
    stage: Stage = None
    watched: bool = False


@dataclass(frozen=True)
class Plan:
    """Runs and profiles to be done, and what is needed to do them on this machine.

    Attributes:
        specs: of a search, the trials: what they choose is not known yet.
        searches: whose trials these are.
        checkpoints: local weights files by sha256: a spec names weights by their hash, not by where they lie.
        protocol: of the runs; None where there are only profiles.
        wanted: how many runs were asked for, with those that cannot be planned; of final runs the most there can be.
        absent: data and weights that are not there, with the reason.
        notes: what a user should know of the plan, a line each.
    """

    specs: list[Spec]
    checkpoints: dict[str, Path]
    protocol: Protocol | None = None
    wanted: Counter[Wanted] = field(default_factory=Counter)
    searches: list[Search] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def plan(request: Request) -> Plan:
    """Every run of the request, once, in an order that keeps a task's runs together; then what is to be profiled."""
    if "preset" in request.protocol_settings:
        raise PeftmarkError(f"--set protocol.preset: a preset sets much else, so use --preset {FAITHFUL}")
    suite = find_suite(request.suite) if request.suite else None
    runs = _plan_runs(suite, request) if suite is None or suite.runs else Plan([], {})
    costs: list[CostSpec] = []
    if suite is not None and not request.tasks:
        costs = suite_costs(suite, request.methods, request.backbones, request.method_settings, request.hardware_class)
    return replace(runs, specs=[*runs.specs, *costs])


def _plan_runs(suite: Suite | None, request: Request) -> Plan:
    protocol_name = suite.protocol if suite else request.protocol
    protocol = load_protocol(protocol_name, request.protocol_settings)
    pairs = suite.pairs() if suite else []
    pairs = _select(pairs, request)
    if not pairs:
        methods, tasks = ", ".join(request.methods) or "its methods", ", ".join(request.tasks) or "its tasks"
        raise PeftmarkError(f"nothing to run in suite {request.suite}: {methods} cannot do {tasks} (another track)")
    preset = request.preset or (suite.preset if suite else "")
    prepared, notes = _with_presets(pairs, request) if preset else ([(pair, Settings()) for pair in pairs], [])
    specs = Specs(protocol_name, protocol, request.method_settings, request.protocol_settings)
    budget = _budget(suite, request)
    planned: dict[str, RunSpec] = {}
    wanted = Counter[Wanted]()
    searches: list[Search] = []
    stages: list[tuple[Stage, int]]
    if budget is not None:
        if preset:
            raise PeftmarkError("--preset says what there is to tune: leave it out, or --trials")
        searches = [found for pair, _ in prepared if (found := specs.search(*pair, budget)) is not None]
        planned = {trial.run_id: trial for search in searches for trial in search.trials}
        trials = number_of_trials(budget.trials, budget.number_of_studies)
        stages = [("trial", trials), ("final", budget.number_of_studies * len(budget.seeds))]
        if any(search.proposals for search in searches):
            notes.append(note(budget.trials // budget.number_of_studies))
    else:
        seeds = request.seeds or (suite.seeds if suite else [0])
        made = [specs.make(*pair, settings) for pair, settings in prepared]
        with no_garbage_collection():
            for number, seed in enumerate(seeds):
                request.progress(number * len(made), len(seeds) * len(made))
                for of_seed in made:
                    if (spec := of_seed(seed)) is not None:
                        planned[spec.run_id] = spec
        stages = [(None, len(seeds))]
    check_held(protocol.frozen_dtype)
    if specs.absent and not request.partial:
        raise PeftmarkError(_all_absent(specs.absent))
    for (_, task, method, config), settings in prepared:
        epochs = specs.epochs(method, config, settings, protocol.epochs)
        watched = any(search.proposals for search in searches)
        wanted.update({Wanted(task, epochs, stage, watched and stage == "trial"): count for stage, count in stages})
    return Plan(list(planned.values()), specs.checkpoints, protocol, wanted, searches, specs.absent, notes)


def _budget(suite: Suite | None, request: Request) -> Budget | None:
    """The request's own, or the suite's; None where nothing is tuned.

    Raises:
        PeftmarkError: where there is none such.
    """
    of_suite = suite.tuning if suite else None
    if request.trials is None and of_suite is None:
        for option, value in (("--studies", request.studies), ("--tuner", request.tuner)):
            if value is not None:
                raise PeftmarkError(f"{option} is of trials: give --trials, too")
        return None
    for name in ("learning_rate", "final_training"):
        if name in request.protocol_settings:
            raise PeftmarkError(f"--set protocol.{name}: a search has its own; leave it out, or --trials")
    table: dict[str, Any] = msgspec.to_builtins(of_suite) if of_suite else {}
    if request.trials is not None:
        table |= {"trials": request.trials, "studies": request.studies}
    elif request.studies is not None:
        table["studies"] = request.studies
    if request.tuner is not None:
        table["tuner"] = request.tuner
    if request.seeds:
        table["seeds"] = list(request.seeds)
    try:
        return msgspec.convert(table, Budget)
    except msgspec.ValidationError as error:
        hint = " (--seed gives those of the final runs)" if request.seeds else ""
        raise PeftmarkError(f"what is to be tuned: {error}{hint}") from error


def _all_absent(absent: Mapping[str, str]) -> str:
    first, *others = absent.values()
    if not others:
        return first
    return f"{first}; {len(others)} more are missing (--dry-run lists them, --available runs what is there)"


def _with_presets(pairs: Sequence[Pair], request: Request) -> tuple[list[tuple[Pair, Settings]], list[str]]:
    """The pairs that there is a recipe for, with it, and notes on what the recipes leave out and who has none.

    Raises:
        PeftmarkError: where there is a recipe for none of them.
    """
    presets = load_presets()
    prepared: list[tuple[Pair, Settings]] = []
    without: dict[str, list[str]] = {}
    for pair in pairs:
        _, task, method, _ = pair
        settings = presets[method].settings(task) if method in presets else None
        if settings is None:
            without.setdefault(method, []).append(task)
        else:
            changed = bool(request.method_settings or request.protocol_settings)
            marked = {**settings.protocol, "preset": CHANGED if changed else FAITHFUL}
            prepared.append((pair, Settings(protocol=marked, config=settings.config)))
    if not prepared:
        method, tasks = next(iter(without.items()))
        has = f"its recipes are for {_tasks_of(method)}" if method in presets else f"there are {', '.join(presets)}"
        raise PeftmarkError(f"no faithful preset of {method} for {tasks[0]}: {has}")
    notes = [presets[method].summary() for method in dict.fromkeys(pair[2] for pair, _ in prepared)]
    if without:
        left_out = ", ".join(f"{name} ({_number(set(tasks))})" for name, tasks in without.items())
        notes.append(f"not run, since there is no faithful preset: {left_out}")
    return prepared, notes


def _number(tasks: Collection[str]) -> str:
    return f"{len(tasks)} task{'s' * (len(tasks) != 1)}"


def _tasks_of(method: str) -> str:
    return ", ".join(pattern for recipe in load_presets()[method].recipes for pattern in recipe.tasks)


Pair = tuple[str, str, str, dict[str, Any]]


def _select(pairs: list[Pair], request: Request) -> list[Pair]:
    """The pairs that a request asks for.

    With a suite, --task narrows it, --backbone replaces its backbones, --method chooses (see `narrowed`). Without one,
    the three are crossed.
    """
    methods = [name for pattern in request.methods for name in METHODS.expand(pattern)]
    tasks = [name for pattern in request.tasks for name in TASKS.expand(pattern)]
    backbones = list(request.backbones)
    if not request.suite:
        if not (methods and tasks and backbones):
            raise PeftmarkError("without --suite, give at least one each of --method, --backbone and --task")
        return [(backbone, task, method, {}) for backbone in backbones for task in tasks for method in methods]

    absent = sorted(set(tasks) - {task for _, task, _, _ in pairs})
    if absent:
        raise PeftmarkError(
            f"suite {request.suite} has no task {absent[0]}: give --method, --backbone and --task alone"
        )
    chosen: list[Pair] = []
    grouped: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for backbone, task, method, config in pairs:
        grouped.setdefault((backbone, task), []).append((method, config))
    for (backbone, task), own in grouped.items():
        if tasks and task not in tasks:
            continue
        own = narrowed(own, methods, TASKS.entry(task).metadata["track"])
        chosen += [(b, task, method, config) for b in backbones or [backbone] for method, config in own]
    return chosen

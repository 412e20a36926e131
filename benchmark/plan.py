"""From what the user asked for to a list of run specs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backbones import find_backbone
from ..errors import PeftmarkError
from ..methods import make_method
from ..registry import METHODS, TASKS
from ..results import (
    FINISHED,
    BackboneSpec,
    MethodSpec,
    ProtocolSpec,
    RunSpec,
    Store,
    TaskSpec,
    canonical_json,
    decode_record,
)
from .protocol import load_protocol
from .suite import find_suite


@dataclass
class Request:
    """What ``peftmark run`` was asked for; empty selections mean the suite's own.

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


@dataclass(frozen=True)
class Plan:
    """Runs to be done, and what is needed to do them on this machine.

    Attributes:
        checkpoints: local weights files by sha256: a spec names weights by their hash, not by where they lie.
    """

    specs: list[RunSpec]
    checkpoints: dict[str, Path]


def plan(request: Request) -> Plan:
    """Every run of the request, once, in an order that keeps a task's runs together."""
    suite = find_suite(request.suite) if request.suite else None
    protocol_name = suite.protocol if suite else request.protocol
    protocol = load_protocol(protocol_name, request.protocol_settings)
    protocol_spec = ProtocolSpec(
        name=protocol.name, version=protocol.version, overrides=_changed(protocol_name, request.protocol_settings)
    )
    pairs = suite.pairs() if suite else []
    pairs = _select(pairs, request)
    if not pairs:
        methods, tasks = ", ".join(request.methods) or "its methods", ", ".join(request.tasks) or "its tasks"
        raise PeftmarkError(f"nothing to run in suite {request.suite}: {methods} cannot do {tasks} (another track)")
    specs = _Specs(protocol_spec, request.method_settings)
    seeds = request.seeds or (suite.seeds if suite else [0])
    runs = [specs.make(*pair, seed) for seed in seeds for pair in pairs]
    return Plan(list({spec.run_id: spec for spec in runs}.values()), specs.checkpoints)


def _changed(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the protocol's own, as the protocol's types have them."""
    plain, changed = load_protocol(name), load_protocol(name, settings)
    values = {key: getattr(changed, key) for key in settings if getattr(changed, key) != getattr(plain, key)}
    _check_recordable(f"protocol {name}", values)
    return values


def _check_recordable(owner: str, settings: Mapping[str, Any]) -> None:
    """JSON has no NaN and no infinity, and a run's identity is the hash of its JSON."""
    for key, value in settings.items():
        try:
            canonical_json(value)
        except ValueError as error:
            raise PeftmarkError(f"{owner}: {key}={value!r} cannot be recorded: {error}") from error


Pair = tuple[str, str, str, dict[str, Any]]


def _select(pairs: list[Pair], request: Request) -> list[Pair]:
    """The pairs that a request asks for.

    With a suite, --task narrows it, --backbone and --method replace its backbones and methods: a user's own method
    runs on the tasks of the suite that are of its track. Without one, the three are crossed.
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
    for backbone, task in dict.fromkeys((backbone, task) for backbone, task, _, _ in pairs):
        if tasks and task not in tasks:
            continue
        own = [(method, config) for b, t, method, config in pairs if (b, t) == (backbone, task)]
        if methods:
            track, known = TASKS.entry(task).metadata["track"], {method for method, _ in own}
            others = [m for m in methods if m not in known and track in METHODS.entry(m).metadata["tracks"]]
            own = [(m, config) for m, config in own if m in methods] + [(m, {}) for m in others]
        chosen += [(b, task, method, config) for b in backbones or [backbone] for method, config in own]
    return chosen


class _Specs:
    """Makes specs; remembers what is costly to find out (weights' hashes, split hashes)."""

    def __init__(self, protocol: ProtocolSpec, settings: Mapping[str, Any]) -> None:
        self.protocol = protocol
        self.settings = settings
        self.backbones: dict[tuple[str, bool], BackboneSpec] = {}
        self.tasks: dict[str, TaskSpec] = {}
        self.checkpoints: dict[str, Path] = {}

    def make(self, backbone: str, task: str, method: str, config: Mapping[str, Any], seed: int) -> RunSpec:
        made = make_method(method, {**config, **self.settings})
        _check_recordable(f"method {method!r}", made.config())
        return RunSpec(
            method=MethodSpec(name=method, version=made.version, config=made.config()),
            backbone=self._backbone(backbone, made.pretrained),
            task=self._task(task),
            protocol=self.protocol,
            seed=seed,
        )

    def _backbone(self, name: str, pretrained: bool) -> BackboneSpec:
        key = (name, pretrained)
        if key not in self.backbones:
            builder = find_backbone(name)
            weights = builder.weights_id(pretrained)
            if pretrained and builder.checkpoint is not None:
                self.checkpoints[weights] = builder.checkpoint.resolve()
            self.backbones[key] = BackboneSpec(name=builder.name, weights=weights)
        return self.backbones[key]

    def _task(self, name: str) -> TaskSpec:
        if name not in self.tasks:
            task = TASKS[name](name)
            self.tasks[name] = TaskSpec(name=name, version=task.version, split_sha256=task.split_sha256())
        return self.tasks[name]


@dataclass(frozen=True)
class Pending:
    """A plan held against a results folder."""

    todo: list[RunSpec]
    done: Counter[str]
    """Finished records by status."""
    damaged: list[str]
    """Run ids whose file is not a record."""


EXISTING = ("skip", "retry", "overwrite")


def pending(specs: list[RunSpec], store: Store, existing: str) -> Pending:
    """What remains to be run.

    Args:
        existing: ``skip`` counts ok, unsupported, oom, diverged and timeout as finished, ``retry`` only ok,
            ``overwrite`` nothing.
    """
    todo, damaged, done = [], [], Counter[str]()
    paths = store.paths()
    finished = {"skip": FINISHED, "retry": frozenset({"ok"}), "overwrite": frozenset[str]()}[existing]
    for spec in specs:
        path = paths.get(spec.run_id)
        try:
            record = decode_record(path.read_bytes(), path) if path else None
        except (PeftmarkError, OSError):
            damaged.append(spec.run_id)
            record = None
        if record is not None and record.run_id != spec.run_id:  # another run's record under this name
            damaged.append(spec.run_id)
            record = None
        if record is not None and record.status in finished:
            done[record.status] += 1
        else:
            todo.append(spec)
    return Pending(todo, done, damaged)

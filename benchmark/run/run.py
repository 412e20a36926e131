"""One run: a spec in, a record out, whatever happens in between."""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ...backbones import RANDOM, Anatomy, find_backbone
from ...errors import PeftmarkError, Unsupported
from ...methods import AdaptedModel, make_method, make_model
from ...registry import METHODS
from ...results import (
    SCHEMA_VERSION,
    BackboneSpec,
    ErrorInfo,
    Params,
    PhaseCost,
    Quality,
    RunRecord,
    RunSpec,
    Storage,
    TestFigure,
    Time,
    TrialFigure,
    predictions_sha256,
    write_atomically,
    write_predictions,
)
from ...results.tuning import tuning_of
from ...tasks import Fingerprint, Task, TaskData, draw_of, make_task
from ..environment import environment
from ..plan.preset import load_presets
from ..plan.protocol import protocol_of
from .data import check_unchanged
from .evaluation import Evaluator, as_arrays
from .failures import error_info, status_of
from .inputs import BOTH, TRAIN, VALIDATION, Inputs, TrainingBatches
from .memory_savings import hold_frozen
from .prefix_cache import PrefixCache
from .training import Curve, Trainer


@dataclass
class _Progress:
    """Where a run is, and what is known so far: a failure reports it."""

    phase: str = "setup"
    seconds: dict[str, float] = field(default_factory=dict)
    data_sha256: str | None = None
    data_warnings: tuple[str, ...] = ()
    params: Params | None = None
    storage: Storage | None = None
    phases: list[PhaseCost] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def enter(self, phase: str) -> Iterator[None]:
        self.phase = phase
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


def run(
    spec: RunSpec,
    device: torch.device,
    checkpoint: Path | None = None,
    adapter_file: Path | None = None,
    cache: PrefixCache | None = None,
    predictions_file: Path | None = None,
    data: Fingerprint | None = None,
) -> RunRecord:
    """Carry out a run. Never raises for what a run can do wrong: the record's status says it.

    Args:
        checkpoint: the weights file, where the spec's weights are not the backbone's own.
        adapter_file: where the trained tensors are saved (safetensors); None does not save them.
        predictions_file: where what it predicts of every test example is kept; None does not keep it.
        cache: what this process keeps from run to run of untouched prefixes' outputs; None computes them in every step.
        data: what the task's data were when the run was launched; None where that is not known.
    """
    progress = _Progress()
    try:
        found = _run(spec, device, checkpoint, adapter_file, cache, predictions_file, data, progress)
    except BaseException as error:  # a plug-in's SystemExit and GeneratorExit too
        if isinstance(error, KeyboardInterrupt) and multiprocessing.parent_process() is None:
            raise  # Ctrl-C, which a worker never gets
        return _record(spec, device, progress, status=status_of(error), error=error_info(error, progress.phase))
    if isinstance(found, TrialFigure):
        return _record(spec, device, progress, status="ok", trial=found)
    return _record(spec, device, progress, status="ok", quality=found)


def _run(
    spec: RunSpec,
    device: torch.device,
    checkpoint: Path | None,
    adapter_file: Path | None,
    cache: PrefixCache | None,
    predictions_file: Path | None,
    prepared: Fingerprint | None,
    progress: _Progress,
) -> Quality | TrialFigure:
    protocol, tuning = protocol_of(spec.protocol), tuning_of(spec)
    rate = protocol.learning_rate_of(spec.method.name, METHODS.entry(spec.method.name).family)
    trained_on: str = protocol.final_training
    if tuning is not None:
        rate, trained_on = tuning.learning_rate, TRAIN if spec.is_trial else BOTH
    with progress.enter("data"):
        draw = draw_of(spec.task.name, spec.seed)
        task, data = load_task(spec.task.name, draw)
        progress.data_warnings = data.warnings
        progress.data_sha256 = _data_sha256(spec.task.name, draw)
        check_unchanged(spec.task, _loaded(spec.task.name, draw)[2], data, prepared)
    with progress.enter("setup"):
        model = build_model(spec, checkpoint, task, data).to(device)
        bare = None if spec.backbone.weights == RANDOM else _pretrained(spec.backbone, checkpoint)
        kind = model.anatomy.input.normalized(protocol.normalization)
        inputs = Inputs(model, spec, data, kind, device, cache, bare)
        phases = model.method.phases()
        last = max((index for index, phase in enumerate(phases) if phase.epochs > 0), default=0)
        # what a method chooses by validation figures, it chooses before the phase that ends in the tested model
        inputs.train_on(trained_on if last == 0 else TRAIN)
        model.method.prepare(model, TrainingBatches(inputs, protocol.batch_size))
        hold_frozen(model, protocol.frozen_dtype)
        progress.params = count_parameters(model)
    evaluator = Evaluator(model, task, data, inputs, protocol.precision)
    trainer = Trainer(
        model,
        inputs,
        data.train.class_names,
        task.templates,
        protocol,
        learning_rate=rate,
        seed=spec.seed,
        validation=evaluator.score,
    )
    curve: Curve = []
    for index, phase in enumerate(phases):
        if index == last:
            inputs.train_on(trained_on)
        with progress.enter("train" if index == last else "tuning"):
            of_phase, cost = trainer.train(phase, tuning.stop_below if tuning and index == last else ())
        curve = of_phase or curve
        if len(phases) > 1:
            progress.phases.append(cost)
            progress.params = count_parameters(model)  # a phase may have changed what is trained
    progress.found = model.method.found()
    metric = model.objective.metric()
    if spec.is_trial:
        with progress.enter("evaluation"):
            on_validation, figure = evaluator.validate()
        progress.storage = _store_adapter(model, adapter_file)
        return TrialFigure(
            metric=metric.name,
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            validation=figure,
            predictions_sha256=predictions_sha256({VALIDATION: as_arrays(on_validation)}),
            curve=curve,
            pruned=bool(curve) and "validation_score" in curve[-1],  # of the last epoch it is `validation` itself
        )
    with progress.enter("evaluation"):
        validation = evaluator.validation() if evaluator.validates else None
        tested, figures = evaluator.tests()
        predictions = {name: as_arrays(of_split) for name, of_split in tested.items()}
        variants = evaluator.variants()
    progress.storage = _store_adapter(model, adapter_file)
    if predictions_file is not None:
        write_predictions(predictions_file, predictions)
    return Quality(
        metric=task.metric or metric.name,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        validation=validation,
        test=task.headline(figures),
        tests={name: TestFigure(value=value, n=len(data.tests[name])) for name, value in figures.items()},
        n_test=sum(len(split) for split in data.tests.values()),
        predictions_sha256=predictions_sha256(predictions),
        curve=curve,
        variants=variants,
    )


def _store_adapter(model: AdaptedModel, file: Path | None) -> Storage:
    """What was trained, kept where there is a file for it."""
    adapter = safetensors.torch.save(model.adapter_state_dict())
    if file is not None:
        write_atomically(file, adapter)
    return Storage(adapter_bytes=len(adapter))


def build_model(spec: RunSpec, checkpoint: Path | None, task: Task, data: TaskData) -> AdaptedModel:
    """What a run trains, before it is trained."""
    method = make_method(spec.method.name, spec.method.config)
    tracks = METHODS.entry(spec.method.name).metadata["tracks"]
    if task.track not in tracks:
        raise Unsupported(f"{spec.method.name} is for {', '.join(tracks)} tasks; {task.name} is {task.track}")
    torch.manual_seed(spec.seed)
    anatomy = _backbone(spec.backbone, checkpoint)
    torch.manual_seed(spec.seed)  # whether the backbone came from the cache must not show in what follows
    return make_model(anatomy, method, task.objective(data), task.num_frames)


def _backbone(spec: BackboneSpec, checkpoint: Path | None) -> Anatomy:
    """A fresh backbone: drawn anew where its weights are random, else a copy of the one that is loaded."""
    if spec.weights == RANDOM:
        return find_backbone(spec.name).build(pretrained=False)
    return copy.deepcopy(_pretrained(spec, checkpoint))


@lru_cache(maxsize=2)
def _pretrained(spec: BackboneSpec, checkpoint: Path | None) -> Anatomy:
    backbone = find_backbone(spec.name if checkpoint is None else f"{spec.name}@{checkpoint}")
    if backbone.weights_id(pretrained=True) != spec.weights:
        raise PeftmarkError(f"the weights of {spec.name} changed since the run was planned: run the command again")
    return backbone.build(pretrained=True)


def load_task(name: str, draw: int = 0) -> tuple[Task, TaskData]:
    """A task, as runs of a draw see it, and its data; kept, since the runs of a task follow one another."""
    task, data, _ = _loaded(name, draw)
    return task, data


@lru_cache(maxsize=2)
def _loaded(name: str, draw: int) -> tuple[Task, TaskData, str]:
    """With the split's hash, computed last: what changes while the data are loaded shows in it."""
    task = make_task(name, draw)
    return task, task.load(), task.split_sha256()


@lru_cache(maxsize=64)
def _data_sha256(name: str, draw: int) -> str:
    return load_task(name, draw)[1].sha256()


def count_parameters(model: AdaptedModel) -> Params:
    """What trains, with and without the head; what an adapter file stores; what merging leaves; all there is."""
    return Params(
        trainable=model.trainable_parameters(),
        trainable_without_head=model.trainable_parameters(include_head=False),
        stored=sum(tensor.numel() for tensor in model.adapter_state_dict().values()),
        added_at_inference=0 if model.anatomy.mergeable else model.inserted_parameters(),
        total=sum(parameter.numel() for parameter in model.parameters()),
    )


def _record(spec: RunSpec, device: torch.device, progress: _Progress, **outcome: Any) -> RunRecord:
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=spec.run_id,
        spec=spec,
        time_s=Time(**{phase: round(seconds, 3) for phase, seconds in progress.seconds.items()}),
        env=environment(device, progress.data_sha256, progress.data_warnings),
        created=now(),
        protocol_deviation=deviation(spec),
        params=progress.params,
        storage=progress.storage,
        phases=progress.phases,
        found=progress.found,
        **outcome,
    )


def failed_record(spec: RunSpec, device: torch.device, status: Any, error: ErrorInfo) -> RunRecord:
    """The record of a run that could not report itself: it ran out of time, or its worker died."""
    return _record(spec, device, _Progress(), status=status, error=error)


def deviation(spec: RunSpec) -> str | None:
    """What of the protocol was changed, for people; None where nothing was."""
    changed = ", ".join(f"{key}={value}" for key, value in sorted(spec.protocol.overrides.items()))
    preset = load_presets().get(spec.method.name)
    if spec.protocol.faithful and preset is not None:
        return preset.summary()  # the same for all of its tasks; what is set for one is in the spec
    return f"protocol {spec.protocol.name}-v{spec.protocol.version} with {changed}" if changed else None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

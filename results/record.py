"""The record of one run: what was asked (`RunSpec`), what came out, and the environment it came out of.

Units stand in the names; accuracies are percent. A record is one JSON file; everything else is derived from records.
"""

from __future__ import annotations

import copyreg
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import PeftmarkError
from .nesting import check_nesting

SCHEMA_VERSION = 1

FAITHFUL = "faithful"
"""What a protocol's override ``preset`` says where all settings are those of the method's faithful preset."""

Status = Literal["ok", "oom", "diverged", "timeout", "unsupported", "error", "cancelled"]
FINISHED: frozenset[str] = frozenset({"ok", "unsupported", "oom", "diverged", "timeout"})
"""Statuses that ``--existing skip`` counts as finished: running again would give the same."""


def _unset() -> UnsetType:
    return UNSET


# as msgspec has it, UNSET is looked for in every module there is, whenever a spec goes to a worker: .6 ms
copyreg.pickle(UnsetType, lambda unset: (_unset, ()))


class RecordPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that a record holds."""


class SpecPart(RecordPart, frozen=True, dict=True):
    """Base of what many specs of a plan have in common: its JSON is made once."""

    @cached_property
    def canonical(self) -> bytes:
        return canonical_json(self)


class MethodSpec(SpecPart, frozen=True):
    name: str
    version: int
    config: dict[str, Any] = {}
    """Every hyper-parameter of the method, defaults included."""


class BackboneSpec(SpecPart, frozen=True):
    name: str
    weights: str
    """The sha256 of the weights' file, or ``"random"``."""


class TaskSpec(SpecPart, frozen=True, omit_defaults=True):
    name: str
    version: int
    split_sha256: str
    preprocessing: str | None = None
    """How files became pixels, by name, e.g. ``squash-bicubic-224``. None, where there are no files, is left out."""


class ProtocolSpec(SpecPart, frozen=True):
    name: str
    version: int
    overrides: dict[str, Any] = {}
    """What ``--set protocol.…`` or a preset changed; a run with any is a deviation and leaves the ranking."""

    @property
    def faithful(self) -> bool:
        """Whether the settings are a method's published recipe, unchanged."""
        return bool(self.overrides.get("preset") == FAITHFUL)


class TuningSpec(SpecPart, frozen=True, omit_defaults=True):
    """Which search, under which budget, a run belongs to.

    Attributes:
        stage: a ``trial`` trains on the training split and is measured on the validation split alone; a ``final`` run
            is of the configuration that was chosen, trains on both and is tested.
        tuner: how trials' values come about: ``halton`` or ``optuna``.
        trials: the budget, as trials of full length; each study's first is the method's default.
        studies: among how many the trials are dealt; each chooses for itself.
        space: what is searched, in words, by name. What of it is a hyper-parameter is in the method's configuration.
        learning_rate: of what the method trains, in place of the protocol's.
        points_sha256: of the list that the trials' values come from; None where a tuner finds its own.
        study: whose trial it is, where studies do not share theirs; None of those that all have.
        stop_below: the score on the validation split, for every epoch but the last, below which a trial is ended after
            it; None where it goes on. Empty where validation is looked at once, when training is over.
    """

    stage: Literal["trial", "final"]
    tuner: str
    trials: int
    studies: int
    space: dict[str, str]
    learning_rate: float
    points_sha256: str | None = None
    study: int | None = None
    stop_below: tuple[float | None, ...] = ()


class Identified(RecordPart, frozen=True, dict=True):  # a dict for the id alone, which is asked for again and again
    """Base of what decides a record."""

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(self)).hexdigest()[:16]


class RunSpec(Identified, frozen=True):
    """All that decides a run's result. Two machines that are given equal specs do the same work."""

    method: MethodSpec
    backbone: BackboneSpec
    task: TaskSpec
    protocol: ProtocolSpec
    trial: int = 0
    seed: int = 0
    tuning: TuningSpec | UnsetType = UNSET
    """Of a run of a search; a spec without it has the id that it had before there were any."""

    @cached_property
    def id(self) -> str:
        """As of all that is `Identified`; a third of the time, where there are millions."""
        parts = self.backbone.canonical, self.method.canonical, self.protocol.canonical, self.seed, self.task.canonical
        text = b'{"backbone":%b,"method":%b,"protocol":%b,"seed":%d,"task":%b,"trial":%d' % (*parts, self.trial)
        if isinstance(self.tuning, TuningSpec):
            text += b',"tuning":%b' % self.tuning.canonical
        return hashlib.sha256(text + b"}").hexdigest()[:16]

    @property
    def run_id(self) -> str:
        return self.id

    @property
    def is_trial(self) -> bool:
        """Whether it is measured on the validation split alone."""
        return isinstance(self.tuning, TuningSpec) and self.tuning.stage == "trial"


class ErrorInfo(RecordPart, frozen=True):
    phase: str
    """Where in the run it happened: setup, data, adapt, train, evaluation."""
    type: str
    message: str


class TestFigure(RecordPart, frozen=True):
    value: float
    n: int


class VariantFigure(RecordPart, frozen=True):
    """One of several models that one training gives, e.g. the ranks of DyLoRA."""

    axis: str
    value: int
    validation: float | None
    test: float


class Quality(RecordPart, frozen=True):
    metric: str
    validation: float | None
    test: float
    """The task's headline figure, e.g. accuracy, or the harmonic mean of base and new classes."""
    tests: dict[str, TestFigure]
    n_test: int
    predictions_sha256: str
    """Of what is predicted (labels) of all test examples, in order: equal specs on one machine give equal hashes."""
    unit: str = "percent"
    """Of `validation`, `test` and `tests`."""
    higher_is_better: bool = True
    curve: list[dict[str, float]] = []
    """One entry an epoch of the last phase: ``epoch``, ``train_loss``, ``learning_rate``."""
    variants: list[VariantFigure] = []


class TrialFigure(RecordPart, frozen=True):
    """What a trial of a search gives: it never sees a test split."""

    metric: str
    validation: float
    """At the last epoch, in `unit`."""
    predictions_sha256: str
    """Of what is predicted of all validation examples, in order."""
    unit: str = "percent"
    higher_is_better: bool = True
    curve: list[dict[str, float]] = []
    """As of a `Quality`; with ``validation_score``, of which more is better, after every epoch but the last where the
    tuner looked at it."""
    pruned: bool = False
    """Whether the tuner ended it before its last epoch."""


class Params(RecordPart, frozen=True):
    """What trains, with and without the head; what an adapter file stores; what merging leaves; all there is."""

    trainable: int
    trainable_without_head: int
    stored: int
    added_at_inference: int
    total: int


class Storage(RecordPart, frozen=True):
    adapter_bytes: int


class Time(RecordPart, frozen=True):
    """Seconds: information, never ranked (a run does not time itself for the ranking).

    `tuning` is what a method spends before the training that counts, e.g. on an architecture search.
    """

    setup: float = 0.0
    data: float = 0.0
    train: float = 0.0
    evaluation: float = 0.0
    tuning: float = 0.0


class PhaseCost(RecordPart, frozen=True):
    """What one phase of a training took."""

    name: str
    epochs: int
    steps: int
    evaluations: int
    """How often the model was measured on the validation split within the phase."""
    seconds: float


class Env(RecordPart, frozen=True):
    hardware_class: str
    device: str
    torch: str
    python: str
    packages: dict[str, str]
    git_sha: str | None
    dirty: bool | None
    threads: int
    data_sha256: str | None = None
    """Of the pixels and labels that were used: two machines whose data differ can be told apart."""
    data_warnings: list[str] = []
    """What is odd about the data, e.g. that they are JPEG copies of a set without loss."""


class RunRecord(RecordPart, frozen=True):
    schema_version: int
    run_id: str
    spec: RunSpec
    status: Status
    time_s: Time
    env: Env
    created: str
    """UTC, ISO 8601."""
    error: ErrorInfo | None = None
    protocol_deviation: str | None = None
    quality: Quality | None = None
    """Of a run that was tested."""
    trial: TrialFigure | None = None
    """Of a trial of a search, in place of `quality`."""
    phases: list[PhaseCost] = []
    """Of a training that has more than one."""
    found: dict[str, Any] = {}
    """What the method chose for itself, e.g. NOAH's architecture."""
    params: Params | None = None
    storage: Storage | None = None


class _Versioned(msgspec.Struct):
    schema_version: int


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no white space, UTF-8; NaN and infinity are refused."""
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def check_recordable(owner: str, settings: Mapping[str, Any]) -> None:
    """JSON has no NaN and no infinity, and a run's identity is the hash of its JSON.

    Raises:
        PeftmarkError: on a setting of `owner`'s that has such a value.
    """
    for key, value in settings.items():
        try:
            canonical_json(value)
        except ValueError as error:
            raise PeftmarkError(f"{owner}: {key}={value!r} cannot be recorded: {error}") from error


def decode_record(data: bytes, source: str | Path, expected: RunSpec | None = None) -> RunRecord:
    """Read and check one record.

    Args:
        expected: what it is probably of; saves the hashing where it is.

    Raises:
        PeftmarkError: where it is not JSON, does not fit the schema, or its id is not its spec's; names `source`.
    """
    record = decode_as(RunRecord, data, source)
    check_nesting(source, record.spec.method.config, record.spec.protocol.overrides, record.found)
    check_id("run_id", record.run_id, record.spec, expected, source)
    ok, is_trial = record.status == "ok", record.spec.is_trial
    if (record.quality is not None) != (ok and not is_trial):
        but = ", and a trial has none" if is_trial else ""
        raise PeftmarkError(f"{source}: a record has quality if and only if its status is ok{but}")
    if (record.trial is not None) != (ok and is_trial):
        raise PeftmarkError(
            f"{source}: a record has a trial's figure if and only if it is a trial's and its status is ok"
        )
    return record


def check_id(name: str, written: str, spec: Identified, expected: Identified | None, source: str | Path) -> None:
    """Raises PeftmarkError where the id that a record has written down is not its spec's."""
    # what is encoded alike, numbers' types and keys' order included, has one canonical JSON
    alike = expected is not None and msgspec.json.encode(spec) == msgspec.json.encode(expected)
    found = expected.id if expected is not None and alike else spec.id
    if written != found:
        raise PeftmarkError(f"{source}: {name} {written} is not that of its spec ({found})")


R = TypeVar("R", bound=RecordPart)


def decode_as(kind: type[R], data: bytes, source: str | Path) -> R:
    """Read one record of a kind that has a ``schema_version``.

    Raises:
        PeftmarkError: where it is not JSON or does not fit the schema; names `source`.
    """
    try:
        record = _decoder(kind).decode(data)
        version = cast(_Versioned, record).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:  # another schema has other fields: that is what to say
            version = _decoder(_Versioned).decode(data).schema_version
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as another:
            raise PeftmarkError(f"{source} is not a record: {another}") from another
        if version == SCHEMA_VERSION:
            raise PeftmarkError(f"{source} is not a record: {error}") from error
    if version != SCHEMA_VERSION:
        raise PeftmarkError(f"{source} has schema version {version}; this peftmark reads {SCHEMA_VERSION}")
    return record


S = TypeVar("S", bound=msgspec.Struct)


@lru_cache
def _decoder(kind: type[S]) -> msgspec.json.Decoder[S]:
    return msgspec.json.Decoder(kind)


def encode_record(record: RecordPart) -> bytes:
    """Indented JSON, for people and for `git diff`."""
    return json.dumps(msgspec.to_builtins(record), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

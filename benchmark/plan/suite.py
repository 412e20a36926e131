"""Suites: which methods run on which backbones and tasks, and what is profiled, as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ...errors import PeftmarkError
from ...registry import METHODS, TASKS, Entry, Registry
from ...results.files import read_regular

_BYTES = 2**20
"""More than any suite has."""

Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What torch takes, and a record can hold."""


class SuiteRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[runs]]``: every method of the table on every task of the table.

    Attributes:
        methods: names, wildcards on ``name`` or ``family/name`` (which select among the methods of the tasks' track),
            or tables with a ``name`` and hyper-parameters.
        exclude: names or wildcards of what the wildcards of `methods` leave out.
    """

    backbone: str
    tasks: list[str]
    methods: list[str | dict[str, Any]]
    exclude: list[str] = []


class SuiteProfiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[profiles]]``: what every method of the table costs on every backbone of the table, in every variant.

    Attributes:
        methods, exclude: as of a `SuiteRuns`; wildcards select among the methods of `track`.
        variants: tables of ``precision``, ``frozen_dtype``, ``gradient_checkpointing`` and ``optimizer`` (``sgd``); an
            empty one is the plain float32 step of AdamW.
    """

    backbones: list[str]
    methods: list[str | dict[str, Any]]
    exclude: list[str] = []
    batch_size: int
    num_classes: int
    track: str = "image"
    variants: list[dict[str, Any]] = msgspec.field(default_factory=lambda: [{}])

    def selected(self) -> list[tuple[str, dict[str, Any]]]:
        """(method, config) of the table, in the file's order."""
        exclude = {name for pattern in self.exclude for name in METHODS.expand(pattern)}
        return [pair for item in self.methods for pair in _methods(item, self.track, exclude)]


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[tuning]``: what every method may spend on its search.

    Attributes:
        trials: of full length; a trial that fails has cost one.
        studies: among how many they are dealt, the method's default in each; by default three where each has five or
            more, else one.
        tuner: ``halton`` takes the trials from a committed list of points, ``optuna`` proposes each from earlier ones.
        seed: of the trials.
        seeds: of what was chosen; others than the trials', and three or more.
    """

    trials: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    studies: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tuner: Literal["halton", "optuna"] = "halton"
    seed: Seed = 0
    seeds: Annotated[tuple[Seed, ...], msgspec.Meta(min_length=3)] = (1, 2, 3)

    def __post_init__(self) -> None:
        if self.trials % self.number_of_studies:
            raise ValueError(f"{self.trials} trials cannot be dealt evenly into {self.number_of_studies} studies")
        if self.seed in self.seeds:
            raise ValueError(f"seed {self.seed} is that of the trials: what they choose is tested with others")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds are there twice")

    @property
    def number_of_studies(self) -> int:
        return self.studies or (3 if self.trials >= 15 and self.trials % 3 == 0 else 1)


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A suite file.

    Attributes:
        protocol: a protocol file's stem; a suite without `runs` needs none.
        preset: ``faithful``: the methods that have a recipe are run as their repositories do, the others not at all.
        tuning: every method is tuned on every task, with its seeds in place of `seeds`.
    """

    description: str
    protocol: str = ""
    preset: Literal["", "faithful"] = ""
    seeds: tuple[Seed, ...] = (0,)
    tuning: Budget | None = None
    runs: list[SuiteRuns] = []
    profiles: list[SuiteProfiles] = []
    name: str = ""

    def __post_init__(self) -> None:
        if not (self.runs or self.profiles):
            raise ValueError("a suite needs [[runs]] or [[profiles]]")
        if self.runs and not self.protocol:
            raise ValueError("[[runs]] need a protocol")
        if self.tuning and self.preset:
            raise ValueError("a preset says what there is to tune: leave one of the two out")

    def pairs(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """(backbone, task, method, config) of every run, in the file's order, without seeds.

        Raises:
            PeftmarkError: where a name is unknown or a wildcard matches nothing.
        """
        pairs = []
        for runs in self.runs:
            exclude = {name for pattern in runs.exclude for name in METHODS.expand(pattern)}
            for task in (name for pattern in runs.tasks for name in TASKS.expand(pattern)):
                track = TASKS.entry(task).metadata["track"]
                for item in runs.methods:
                    for method, config in _methods(item, track, exclude):
                        pairs.append((runs.backbone, task, method, config))
        return pairs


def _methods(item: str | dict[str, Any], track: str, exclude: set[str]) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(item, dict):
        config = dict(item)
        name = config.pop("name", None)
        if not isinstance(name, str):
            raise PeftmarkError(f"a method table needs a name: {item}")
        return [(METHODS.canonical(name), config)]
    names = METHODS.expand(item)
    if any(character in item for character in "*?["):
        names = [n for n in names if track in METHODS.entry(n).metadata["tracks"] and n not in exclude]
    return [(name, {}) for name in names]


def narrowed(
    listed: Sequence[tuple[str, dict[str, Any]]], wanted: Collection[str], track: str
) -> list[tuple[str, dict[str, Any]]]:
    """What ``--method`` makes of the (method, config) that a suite lists for tasks of a track.

    Of those listed the `wanted` ones, as the suite configures them; then the others that are wanted and of the track,
    with their defaults: a user's own method. All that is listed where nothing is wanted.
    """
    if not wanted:
        return list(listed)
    known = {method for method, _ in listed}
    others = [name for name in wanted if name not in known and track in METHODS.entry(name).metadata["tracks"]]
    return [(name, config) for name, config in listed if name in wanted] + [(name, {}) for name in others]


def parse_suite(name: str, table: Mapping[str, Any], origin: str) -> Suite:
    """Check a suite's table.

    Raises:
        PeftmarkError: where a key is missing, unknown or of the wrong type; it names the file.
    """
    try:
        return msgspec.convert({**table, "name": name}, Suite)
    except msgspec.ValidationError as error:
        raise PeftmarkError(f"suite {origin}: {error}") from error


SUITES_FOLDER = Path(__file__).parent.parent / "suites"


def suite_entry(path: Path) -> Entry[Suite]:
    """The catalogue entry of a suite file; its name is the file's stem.

    Raises:
        PeftmarkError: where the file cannot be read, or is not TOML.
    """
    try:
        table = tomllib.loads(read_regular(path, _BYTES).decode())
    except OSError as error:
        raise PeftmarkError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of 5,000 digits, nested too deep
        raise PeftmarkError(f"{path} is not a TOML file: {error}") from error
    return Entry(
        name=path.stem,
        metadata={"protocol": table.get("protocol", "")},
        doc=str(table.get("description", "")),
        origin=str(path),
        qualname=path.stem,
        load=lambda: parse_suite(path.stem, table, origin=str(path)),
    )


SUITES: Registry[Suite] = Registry("suite", lambda: map(suite_entry, sorted(SUITES_FOLDER.glob("*.toml"))))
"""The suites that come with peftmark."""


def find_suite(name: str) -> Suite:
    """A suite by name, or by the path of a TOML file.

    Raises:
        PeftmarkError: on an unknown name or a file that is not a suite.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.exists():
            raise PeftmarkError(f"no suite file {name}")
        return suite_entry(path).load()
    return SUITES[name]

"""The specs of single runs, and of a search's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from ...backbones import find_backbone
from ...errors import PeftmarkError
from ...methods import Method, make_method
from ...methods.search_space import LEARNING_RATE, Dimension, search_space
from ...registry import METHODS, TASKS
from ...results import (
    BackboneSpec,
    MethodSpec,
    ProtocolSpec,
    RunSpec,
    TaskSpec,
    TuningSpec,
    check_recordable,
)
from ...results.tuning import number_of_trials, search_key
from ...tasks import draw_of, make_task
from ..tuning.optuna_search import Proposals, import_optuna
from ..tuning.points import points_sha256, values
from ..tuning.search import Search
from .preset import Settings
from .protocol import Protocol, load_protocol
from .suite import Budget


class Specs:
    """Makes specs; remembers what is costly to find out (weights' hashes, split hashes), and what seeds share.

    Args:
        name: of the protocol, which `protocol` is with what the request sets of it.
        method_settings, protocol_settings: the request's own, which go before a suite's and a preset's.
    """

    def __init__(
        self,
        name: str,
        protocol: Protocol,
        method_settings: Mapping[str, Any],
        protocol_settings: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.protocol = protocol
        self.method_settings = method_settings
        self.protocol_settings = protocol_settings
        self.methods: dict[tuple[str, str], tuple[Method, MethodSpec]] = {}
        self.protocols: dict[str, ProtocolSpec] = {}
        self.backbones: dict[tuple[str, bool], BackboneSpec] = {}
        self.tasks: dict[tuple[str, int], TaskSpec] = {}
        self.checkpoints: dict[str, Path] = {}
        self.absent: dict[str, str] = {}

    def make(
        self, backbone: str, task: str, method: str, config: Mapping[str, Any], preset: Settings
    ) -> Callable[[int], RunSpec | None]:
        """What makes the spec of a seed. The request's own settings go before the preset's, these before the suite's.

        It gives None where the data or the weights are not there, which `absent` then says.
        """
        made, method_spec = self._method(method, config, preset)
        protocol = self._protocol({**preset.protocol, **self.protocol_settings})
        built, drawn = self._backbone(backbone, made.pretrained), TASKS[task].drawn_by_seed
        data = self._task(task, draw_of(task, 0)) if not drawn else None

        def of_seed(seed: int) -> RunSpec | None:
            found = self._task(task, draw_of(task, seed)) if drawn else data
            if built is None or found is None:
                return None
            return RunSpec(method=method_spec, backbone=built, task=found, protocol=protocol, seed=seed)

        return of_seed

    def search(self, backbone: str, task: str, method: str, config: Mapping[str, Any], budget: Budget) -> Search | None:
        """Trial 0 is what is run without a search. What the request sets is not searched.

        None where the data or the weights are not there, which `absent` then says.
        """
        made, _ = self._method(method, config, Settings())
        space = search_space(method, made)
        space = {key: dimension for key, dimension in space.items() if key not in self.method_settings}
        rate = self.protocol.learning_rate_of(method, METHODS.entry(method).family)
        tuning = TuningSpec(
            stage="trial",
            tuner=budget.tuner,
            trials=budget.trials,
            studies=budget.number_of_studies,
            space={key: str(dimension) for key, dimension in space.items()},
            learning_rate=rate,
            points_sha256=points_sha256() if budget.tuner == "halton" else None,
        )

        def trial(
            found: Mapping[str, Any], index: int, study: int | None = None, stop_below: tuple[float | None, ...] = ()
        ) -> RunSpec | None:
            values = {key: value for key, value in found.items() if key != LEARNING_RATE}
            spec = self.make(backbone, task, method, {**config, **values}, Settings())(budget.seed)
            if spec is None:
                return None
            of_trial = msgspec.structs.replace(
                tuning, learning_rate=found.get(LEARNING_RATE, rate), study=study, stop_below=stop_below
            )
            return msgspec.structs.replace(spec, trial=index, tuning=of_trial)

        def final(of_trial: RunSpec, seed: int) -> RunSpec | None:
            spec = self.make(backbone, task, method, of_trial.method.config, Settings())(seed)
            if spec is None:
                return None
            chosen = msgspec.structs.replace(
                cast(TuningSpec, of_trial.tuning), stage="final", study=None, stop_below=()
            )
            return msgspec.structs.replace(spec, trial=of_trial.trial, tuning=chosen)

        if budget.tuner == "optuna":
            return self._proposed(made, space, rate, budget.seeds, trial, final)
        count = number_of_trials(budget.trials, budget.number_of_studies)
        trials = [trial(values(space, index) if index else {}, index) for index in range(count)]
        there = tuple(spec for spec in trials if spec is not None)
        return Search(there, budget.seeds, final) if len(there) == count else None

    def _proposed(
        self,
        made: Method,
        space: Mapping[str, Dimension],
        rate: float,
        seeds: tuple[int, ...],
        trial: Callable[..., RunSpec | None],
        final: Callable[[RunSpec, int], RunSpec | None],
    ) -> Search | None:
        """A search whose trials depend on what was tried before."""
        import_optuna()
        last = next((phase for phase in reversed(made.phases()) if phase.epochs > 0), None)
        epochs = round(self.protocol.epochs * last.epochs) if last else 0
        watched: tuple[None, ...] = (None,) * max(epochs - 1, 0)
        default = trial({}, 0, None, watched)
        if default is None:
            return None

        def propose(found: Mapping[str, Any], index: int, study: int, stop_below: tuple[float | None, ...]) -> RunSpec:
            return cast(RunSpec, trial(found, index, study, stop_below))

        proposals = Proposals(
            key=search_key(default),
            default=default,
            space=space,
            values={**made.config(), LEARNING_RATE: rate},
            make=propose,
            last=epochs,
        )
        return Search((default,), seeds, final, proposals)

    def epochs(self, method: str, config: Mapping[str, Any], preset: Settings, own: int) -> float:
        """Of all phases of a method, in the protocol's `own` epochs."""
        phases = sum(phase.epochs for phase in self._method(method, config, preset)[0].phases())
        return phases * preset.protocol.get("epochs", own) / own if own else phases

    def _method(self, name: str, config: Mapping[str, Any], preset: Settings) -> tuple[Method, MethodSpec]:
        settings = {**config, **preset.config, **self.method_settings}
        key = name, repr(settings)
        if key not in self.methods:
            made = make_method(name, settings)
            check_recordable(f"method {name!r}", made.config())
            self.methods[key] = made, MethodSpec(name=name, version=made.version, config=made.config())
        return self.methods[key]

    def _protocol(self, settings: Mapping[str, Any]) -> ProtocolSpec:
        key = repr(sorted(settings.items()))
        if key not in self.protocols:
            plain = load_protocol(self.name)
            overrides = _changed(self.name, settings)
            self.protocols[key] = ProtocolSpec(name=plain.name, version=plain.version, overrides=overrides)
        return self.protocols[key]

    def _backbone(self, name: str, pretrained: bool) -> BackboneSpec | None:
        key, label = (name, pretrained), f"backbone {name}"
        if key not in self.backbones:
            if pretrained and label in self.absent:
                return None
            builder = find_backbone(name)
            try:
                weights = builder.weights_id(pretrained)
            except PeftmarkError as error:
                self.absent[label] = str(error)
                return None
            if pretrained and builder.checkpoint is not None:
                self.checkpoints[weights] = builder.checkpoint.resolve()
            self.backbones[key] = BackboneSpec(name=builder.name, weights=weights)
        return self.backbones[key]

    def _task(self, name: str, draw: int) -> TaskSpec | None:
        key, label = (name, draw), f"task {name}"
        if key not in self.tasks:
            if label in self.absent:
                return None
            task = make_task(name, draw)
            try:
                split = task.split_sha256()
            except PeftmarkError as error:
                self.absent[label] = str(error)
                return None
            self.tasks[key] = TaskSpec(
                name=name, version=task.version, split_sha256=split, preprocessing=task.preprocessing
            )
        return self.tasks[key]


def _changed(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the protocol's own, as the protocol's types have them."""
    plain, changed = load_protocol(name), load_protocol(name, settings)
    values = {key: getattr(changed, key) for key in settings if getattr(changed, key) != getattr(plain, key)}
    check_recordable(f"protocol {name}", values)
    return values

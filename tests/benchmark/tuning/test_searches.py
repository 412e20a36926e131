"""Searches, from the request to the run of what was chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from peftmark.benchmark.plan.runs import Plan, Request, plan
from peftmark.benchmark.plan.state import plan_state
from peftmark.benchmark.run import training
from peftmark.benchmark.run.evaluation import Evaluator
from peftmark.benchmark.run.run import failed_record, run
from peftmark.benchmark.tuning.points import points_sha256, values
from peftmark.benchmark.tuning.search import Found, finals
from peftmark.errors import PeftmarkError
from peftmark.methods import make_method
from peftmark.methods.search_space import LogUniform, search_space
from peftmark.results import ErrorInfo, RunRecord, RunSpec, Store, TuningSpec
from peftmark.results.tuning import chosen, tuning_of

CPU = torch.device("cpu")
TOYS = {"methods": ["toy_full"], "tasks": ["toy/bright"], "backbones": ["toy/pixels"]}
SHORT = {"epochs": 2, "batch_size": 8}


def asked(**changes: Any) -> Plan:
    return plan(Request(**{**TOYS, "protocol_settings": SHORT, "trials": 6, "studies": 2, **changes}))


def runs_of(made: Plan) -> list[RunSpec]:
    return [spec for spec in made.specs if isinstance(spec, RunSpec)]


def searched(spec: RunSpec) -> TuningSpec:
    tuning = tuning_of(spec)
    assert tuning is not None
    return tuning


def test_the_trials_of_a_search(toy_plugin: Path) -> None:
    """The default at its protocol's rate, then the list's points."""
    trials = runs_of(asked())
    space = search_space("toy_full", make_method("toy_full"))
    rates = [1e-3, *(values(space, trial)["learning_rate"] for trial in range(1, 5))]
    assert [(spec.trial, searched(spec).learning_rate, spec.seed) for spec in trials] == [
        (trial, rate, 0) for trial, rate in enumerate(rates)
    ]
    assert {(searched(spec).stage, searched(spec).trials, searched(spec).studies) for spec in trials} == {
        ("trial", 6, 2)
    }
    assert {searched(spec).points_sha256 for spec in trials} == {points_sha256()}
    assert {spec.method.config["seconds"] for spec in trials} == {0.0}


def test_hyper_parameters_are_searched_too(toy_plugin: Path) -> None:
    request = Request(methods=["lora"], tasks=["toy/bright"], backbones=["toy/pixels"], trials=3)
    first, second, third = runs_of(plan(request))
    space = search_space("lora", make_method("lora"))
    assert first.method.config == make_method("lora").config()
    for trial, spec in [(1, second), (2, third)]:
        found = values(space, trial)
        assert searched(spec).learning_rate == found.pop("learning_rate")
        assert spec.method.config == {**first.method.config, **found}
    assert searched(second).space == {key: str(dimension) for key, dimension in space.items()}


def test_what_is_set_is_not_searched(toy_plugin: Path) -> None:
    request = Request(
        methods=["lora"], tasks=["toy/bright"], backbones=["toy/pixels"], trials=3, method_settings={"alpha": 3.0}
    )
    trials = runs_of(plan(request))
    assert {spec.method.config["alpha"] for spec in trials} == {3.0}
    assert set(searched(trials[0]).space) == {"learning_rate"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 7}, "7 trials cannot be dealt evenly into 2 studies"),
        ({"trials": None}, "--studies is of trials: give --trials, too"),
        ({"seeds": [0, 1, 2]}, "seed 0 is that of the trials"),
        ({"seeds": [1, 2]}, "Expected `array` of length >= 3"),
        ({"seeds": [1, 2, 2]}, "seeds are there twice"),
        ({"trials": 200, "studies": 1}, "there are points for 64 trials beside the default"),
        ({"protocol_settings": {"learning_rate": 0.1}}, "--set protocol.learning_rate: a search has its own"),
        ({"protocol_settings": {"final_training": "train"}}, "--set protocol.final_training: a search has its own"),
        ({"preset": "faithful", "methods": ["ssf"], "tasks": ["vtab/cifar"], "partial": True}, "--preset says what"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(toy_plugin: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        asked(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("trials", "studies"), [(14, 1), (15, 3), (16, 1), (30, 3)])
def test_three_studies_where_each_has_five_trials(toy_plugin: Path, trials: int, studies: int) -> None:
    made = asked(trials=trials, studies=None)
    assert searched(runs_of(made)[0]).studies == studies
    assert len(made.specs) == trials - studies + 1


Watched = list[tuple[int, float]]


@pytest.fixture
def trainings(toy_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """How many images each training was of, and its learning rate."""
    train, seen = training.train, []

    def watched(model: Any, images: Any, labels: Any, protocol: Any, rate: float, *others: Any) -> Any:
        seen.append((len(labels), rate))
        return train(model, images, labels, protocol, rate, *others)

    monkeypatch.setattr(training, "train", watched)
    return seen


def test_a_trial_never_sees_the_test_split(trainings: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluator, "tests", lambda evaluator: pytest.fail("the test split was looked at"))
    record = run(runs_of(asked())[2], CPU)
    assert (record.status, record.quality) == ("ok", None)
    assert record.trial is not None
    assert (record.trial.metric, len(record.trial.curve)) == ("accuracy", 2)
    assert 0 <= record.trial.validation <= 100
    assert trainings == [(16, searched(record.spec).learning_rate)]
    again = run(record.spec, CPU)
    assert again.trial == record.trial


def carry_out(specs: list[RunSpec], store: Store) -> dict[int, RunRecord]:
    store.root.mkdir(exist_ok=True)
    records = {}
    for spec in specs:
        records[spec.trial] = run(spec, CPU)
        store.write(records[spec.trial])
    return records


def test_what_is_chosen_trains_on_both_and_is_tested_with_fresh_seeds(trainings: Watched, tmp_path: Path) -> None:
    made, store = asked(), Store(tmp_path / "results")
    trials = carry_out(runs_of(made), store)
    trainings.clear()
    specs, without = finals(made.searches, Found(store))
    wanted = list(dict.fromkeys(record.spec.trial for record in chosen(trials)))
    assert without == 0
    assert [(spec.trial, spec.seed) for spec in specs] == [(trial, seed) for trial in wanted for seed in (1, 2, 3)]
    assert {searched(spec).stage for spec in specs} == {"final"}
    record = run(specs[0], CPU)
    assert record.quality is not None
    assert (record.trial, record.quality.validation, record.quality.n_test) == (None, None, 12)
    assert trainings == [(26, searched(trials[wanted[0]].spec).learning_rate)]
    assert record.protocol_deviation is None or "learning_rate" not in record.protocol_deviation


def test_nothing_is_chosen_before_all_trials_are_done(toy_plugin: Path, tmp_path: Path) -> None:
    made, store = asked(), Store(tmp_path / "results")
    carry_out(runs_of(made)[:-1], store)
    assert finals(made.searches, Found(store)) == ([], 1)
    (store.root / f"{made.specs[-1].id}.json").write_text("{")
    assert finals(made.searches, Found(store)) == ([], 1)


def test_what_is_chosen_has_seen_what_the_others_saw(toy_plugin: Path, tmp_path: Path) -> None:
    made, store = asked(), Store(tmp_path / "results")
    trials = carry_out(runs_of(made), store)
    other = msgspec.structs.replace(trials[3].env, data_sha256="0" * 64)
    store.write(msgspec.structs.replace(trials[3], env=other))
    with pytest.raises(PeftmarkError, match="the trials of toy_full on toy/bright did not all see the same data"):
        finals(made.searches, Found(store))


def test_a_trial_that_is_to_be_run_again_is_not_chosen_among(toy_plugin: Path, tmp_path: Path) -> None:
    made, store = asked(), Store(tmp_path / "results")
    trials = carry_out(runs_of(made), store)
    for phase, open_searches in [("data", 1), ("train", 0)]:
        store.write(failed_record(trials[3].spec, CPU, "error", ErrorInfo(phase=phase, type="X", message="x")))
        assert finals(made.searches, Found(store))[1] == open_searches


@pytest.mark.parametrize(
    ("phase", "costs"), [("train", True), ("evaluation", True), ("run", True), ("data", False), ("setup", False)]
)
def test_a_crashed_trial_costs_a_trial(toy_plugin: Path, tmp_path: Path, phase: str, costs: bool) -> None:
    """Unless it never trained: then it says nothing of its configuration."""
    made, store = asked(), Store(tmp_path / "results")
    store.root.mkdir()
    error = ErrorInfo(phase=phase, type="X", message="x")
    for spec in (runs_of(made)[1], runs_of(plan(Request(**TOYS)))[0]):  # type: ignore[arg-type]
        store.write(failed_record(spec, CPU, "error", error))
    assert dict(plan_state(made.specs, store, "skip").done) == ({"error": 1} if costs else {})
    assert dict(plan_state(made.specs, store, "retry").done) == {}
    assert dict(plan_state(plan(Request(**TOYS)).specs, store, "skip").done) == {}  # type: ignore[arg-type]


def test_a_drawn_task_is_drawn_anew_for_what_was_chosen() -> None:
    """Trials see the draw of their seed; each final run that of its own."""
    request = Request(methods=["linear"], tasks=["embedded/digits"], backbones=["embedded/vit"], trials=2)
    [search] = plan(request).searches
    final = search.final(search.trials[1], 3)
    assert final is not None
    assert (final.seed, final.task.name, searched(final).stage) == (3, "embedded/digits", "final")
    assert search.seeds == (1, 2, 3)


def test_the_command(invoke: Callable[..., Any], toys: Path, tmp_path: Path) -> None:
    """Trials, then what they choose; the same command again has nothing to do."""
    asked = ("--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels", "--import", toys)
    tuned = ("run", *asked, "--trials", 4, "--studies", 2, "--set", "protocol.epochs=1", "--jobs", 1)
    planned = invoke(*tuned, "--dry-run")
    assert planned.lines[-2:] == [
        "3 to run, 0 finished, in runs",
        "and what 1 searches choose, when their trials are done",
    ]
    ended = invoke(*tuned)
    assert ended.code == 0, ended.err
    records, problems = Store(tmp_path / "runs").load()
    assert problems == []
    trials = {record.spec.trial: record for record in records if record.trial}
    final = [record for record in records if record.quality]
    assert sorted(trials) == [0, 1, 2]
    best = dict.fromkeys(record.spec.trial for record in chosen(trials))
    assert sorted((record.spec.trial, record.spec.seed) for record in final) == sorted(
        (trial, seed) for trial in best for seed in (1, 2, 3)
    )
    again = invoke(*tuned)
    assert again.lines[-1] == f"nothing to run; {len(records)} were finished before; records in runs"
    assert invoke("validate", "runs").code == 0


def test_a_range_of_its_own_is_another_search(toy_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peftmark.methods import search_space as module

    before = {spec.run_id for spec in runs_of(asked())}
    monkeypatch.setattr(module, "_FACTORS", LogUniform(1e-3, 1e-2))
    assert not before & {spec.run_id for spec in runs_of(asked())}

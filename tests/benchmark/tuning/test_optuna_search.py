"""Searches by Optuna: the budget in epochs, what a study proposes, and that it goes on where it was."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from peftmark.benchmark.plan.runs import Plan, Request, plan
from peftmark.benchmark.run.run import failed_record, run
from peftmark.benchmark.tuning.optuna_search import Proposals, import_optuna
from peftmark.errors import PeftmarkError
from peftmark.results import ErrorInfo, RunRecord, RunSpec, Store, TrialFigure, TuningSpec
from peftmark.results.tuning import chosen, studies_of, tuning_of

pytest.importorskip("optuna")

CPU = torch.device("cpu")
EPOCHS = 9


def asked(**changes: Any) -> Plan:
    request = {"methods": ["toy_full"], "tasks": ["toy/bright"], "backbones": ["toy/pixels"]}
    settings = {"epochs": EPOCHS, "batch_size": 8}
    return plan(
        Request(**{**request, "protocol_settings": settings, "trials": 12, "studies": 2, "tuner": "optuna", **changes})
    )


@pytest.fixture
def proposals(toy_plugin: Path) -> Proposals:
    [search] = asked().searches
    assert search.proposals is not None
    return search.proposals


def searched(spec: RunSpec) -> TuningSpec:
    tuning = tuning_of(spec)
    assert tuning is not None
    return tuning


def made_up(spec: RunSpec, best_rate: float = 0.01) -> RunRecord:
    """The record of a trial whose score grows with its epochs, and with how near its rate is; one near 0.03 failed."""
    tuning = searched(spec)
    failed = failed_record(spec, CPU, "diverged", ErrorInfo(phase="train", type="Diverged", message="x"))
    if 0.03 < tuning.learning_rate < 0.04:
        return failed
    curve: list[dict[str, float]] = []
    best = 80 - 1000 * abs(tuning.learning_rate - best_rate)
    for epoch in range(1, EPOCHS + 1):
        curve.append({"epoch": float(epoch)})
        if epoch < EPOCHS:
            curve[-1]["validation_score"] = best * epoch / EPOCHS
            least = tuning.stop_below[epoch - 1]
            if least is not None and curve[-1]["validation_score"] < least:
                break
    pruned = "validation_score" in curve[-1]
    figure = TrialFigure(
        metric="accuracy",
        validation=best * len(curve) / EPOCHS,
        predictions_sha256="0" * 64,
        curve=curve,
        pruned=pruned,
    )
    return msgspec.structs.replace(failed, status="ok", error=None, trial=figure)


def search(
    proposals: Proposals, folder: Path, between: Callable[[], None] = lambda: None, best_rate: float = 0.01
) -> tuple[dict[str, RunRecord], list[int]]:
    """All records of a search, and how many trials each round had."""
    records: dict[str, RunRecord] = {}
    rounds = []

    def record_of(spec: RunSpec) -> RunRecord | None:
        return records.get(spec.run_id)

    while todo := proposals.state(folder, record_of)[1]:
        records.update({spec.run_id: made_up(spec, best_rate) for spec in todo})
        rounds.append(len(todo))
        between()
    return records, rounds


def cost(record: RunRecord) -> int:
    return len(record.trial.curve) if record.trial else EPOCHS


def test_the_budget_is_of_epochs(proposals: Proposals, tmp_path: Path) -> None:
    """What pruned trials leave is spent on more trials, and never more than there is."""
    records, rounds = search(proposals, tmp_path)
    studies = studies_of({record.spec.trial: record for record in records.values()})
    for study in studies:
        spent = sum(cost(record) for record in study)
        assert 6 * EPOCHS - EPOCHS < spent <= 6 * EPOCHS
        assert len(study) > 6
    kinds = Counter(record.trial.pruned if record.trial else None for record in records.values())
    assert kinds[True] > 2 and kinds[False] > 4 and kinds[None] > 0  # all kinds were tried
    assert rounds[:2] == [1, 2]  # the default for both, then one trial each
    assert sorted(record.spec.trial for record in records.values())[:3] == [0, 1, 2]


def test_the_first_is_the_default(proposals: Proposals) -> None:
    default = proposals.default
    assert (default.trial, default.seed, searched(default).study) == (0, 0, None)
    assert (searched(default).learning_rate, searched(default).points_sha256) == (1e-3, None)
    assert searched(default).stop_below == (None,) * (EPOCHS - 1)


def test_what_is_ended_early_is_below_the_median_after_a_third(proposals: Proposals, tmp_path: Path) -> None:
    records, _ = search(proposals, tmp_path)
    [first, *later] = studies_of({record.spec.trial: record for record in records.values()})[0]
    complete = [first]
    for record in later:
        stop = searched(record.spec).stop_below
        scores = [[entry.get("validation_score", 0.0) for entry in each.trial.curve] for each in complete if each.trial]
        for epoch, least in enumerate(stop, 1):
            if epoch <= EPOCHS // 3 or len(scores) < 2:
                assert least is None
            else:
                column = sorted(score[epoch - 1] for score in scores)
                middle = len(column) // 2
                assert least == pytest.approx((column[middle] + column[-middle - 1]) / 2)
        if record.trial is not None and not record.trial.pruned:
            complete.append(record)


@pytest.mark.parametrize("harm", ["none", "new", "gone", "half", "torn"])
def test_a_search_goes_on_where_it_was(proposals: Proposals, tmp_path: Path, harm: str) -> None:
    """Whatever is left of its journals: the trials are those of a search that nothing disturbed."""

    def between() -> None:
        for path in (tmp_path / "other").glob("*.log"):
            if harm == "gone":
                path.unlink()
            elif harm == "half":
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            elif harm == "torn":
                path.write_bytes(path.read_bytes() + b'{"op_code": 4, "wor')

    undisturbed, _ = search(proposals, tmp_path / "one")
    again = replace(proposals) if harm == "new" else proposals
    assert search(again, tmp_path / "other", between)[0].keys() == undisturbed.keys()


def test_a_third_at_most_is_random(proposals: Proposals) -> None:
    assert proposals.startup == 2
    assert [replace(proposals, trials=trials, studies=3).startup for trials in (15, 30, 45)] == [1, 3, 5]


def test_later_trials_depend_on_what_was_found(proposals: Proposals, tmp_path: Path) -> None:
    """Those at random do not."""
    proposals = replace(proposals, trials=24)
    one, _ = search(proposals, tmp_path / "one")
    other, _ = search(proposals, tmp_path / "other", best_rate=0.001)
    rates = [
        [searched(record.spec).learning_rate for record in studies_of({r.spec.trial: r for r in records.values()})[0]]
        for records in (one, other)
    ]
    same = [a == b for a, b in zip(*rates, strict=False)]
    assert proposals.startup == 4
    assert all(same[:4]) and same[5:].count(False) > len(same[5:]) / 2


def test_what_was_pruned_is_not_chosen(proposals: Proposals, tmp_path: Path) -> None:
    records, _ = search(proposals, tmp_path)
    by_index = {record.spec.trial: record for record in records.values()}
    for study, choice in zip(studies_of(by_index), chosen(by_index), strict=True):
        ends = [record.trial.validation for record in study if record.trial and not record.trial.pruned]
        assert choice.trial is not None
        assert (choice.trial.pruned, choice.trial.validation) == (False, max(ends))


def test_a_run_looks_after_every_epoch_and_ends_where_its_spec_says(toy_plugin: Path) -> None:
    [default] = [spec for spec in asked().specs if isinstance(spec, RunSpec)]
    whole = run(default, CPU).trial
    assert whole is not None
    assert [len(whole.curve), sum("validation_score" in entry for entry in whole.curve)] == [EPOCHS, EPOCHS - 1]
    assert not whole.pruned
    [unwatched] = [spec for spec in asked(tuner="halton", trials=1, studies=1).specs if isinstance(spec, RunSpec)]
    alone = run(unwatched, CPU).trial
    assert alone is not None
    assert (alone.validation, alone.predictions_sha256) == (whole.validation, whole.predictions_sha256)
    stop = (None, None, 100.1, *[None] * (EPOCHS - 4))
    early = run(
        msgspec.structs.replace(default, tuning=msgspec.structs.replace(searched(default), stop_below=stop)), CPU
    )
    assert early.trial is not None
    assert (early.trial.pruned, len(early.trial.curve)) == (True, 3)
    assert early.trial.curve[:2] == whole.curve[:2]
    assert early.trial.validation == early.trial.curve[-1]["validation_score"]


def test_without_optuna_it_is_one_line(toy_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PeftmarkError, match=r"--tuner optuna needs Optuna: pip install 'peftmark\[optuna\]'"):
        asked()
    assert asked(tuner="halton").searches
    with pytest.raises(PeftmarkError):
        import_optuna()


def test_the_command(invoke: Callable[..., Any], toys: Path, tmp_path: Path) -> None:
    asked = ("--method", "toy_full", "--task", "toy/bright", "--backbone", "toy/pixels", "--import", toys)
    tuned = ("run", *asked, "--trials", 4, "--studies", 2, "--tuner", "optuna", "--set", "protocol.epochs=2")
    ended = invoke(*tuned, "--jobs", 1)
    assert ended.code == 0, ended.err
    records, problems = Store(tmp_path / "runs").load()
    assert problems == []
    trials = {record.spec.trial: record for record in records if record.trial}
    assert sorted(trials) == [0, 1, 2]  # 2 of full length in each study, the default in both
    best = {record.spec.trial for record in chosen(trials)}
    final = {(record.spec.trial, record.spec.seed) for record in records if record.quality}
    assert final == {(trial, seed) for trial in best for seed in (1, 2, 3)}
    assert invoke(*tuned).lines[-1].startswith("nothing to run; ")
    assert invoke("validate", "runs").code == 0

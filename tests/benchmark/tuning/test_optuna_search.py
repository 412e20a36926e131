"""Searches by Optuna: the budget in epochs, what a study proposes, and that it goes on where it was."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from peftmark.benchmark.plan.estimate import estimate, images_per_second
from peftmark.benchmark.plan.runs import Plan, Request, plan
from peftmark.benchmark.run.run import failed_record, run
from peftmark.benchmark.tuning.optuna_search import Proposals, import_optuna, startup
from peftmark.benchmark.tuning.search import Found, forget, next_trials
from peftmark.errors import PeftmarkError
from peftmark.registry import TASKS
from peftmark.results import ErrorInfo, RunRecord, RunSpec, Store, Time, TrialFigure, TuningSpec
from peftmark.results.tuning import chosen, missing, tuning_of
from peftmark.results.tuning import studies_of as indices_of
from peftmark.results.validation import run_problems

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
    return proposals_of(asked())


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "journals"


def proposals_of(made: Plan) -> Proposals:
    [search] = made.searches
    assert search.proposals is not None
    return search.proposals


def searched(spec: RunSpec) -> TuningSpec:
    tuning = tuning_of(spec)
    assert tuning is not None
    return tuning


def studies_of(trials: dict[int, RunRecord]) -> list[list[RunRecord]]:
    return [[trials[index] for index in study] for study in indices_of(searched(trials[0].spec), trials)]


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


def test_the_budget_is_of_epochs(toy_plugin: Path, tmp_path: Path) -> None:
    """What pruned trials leave is spent on more trials, and never more than there is."""
    records, rounds = search(proposals_of(asked(trials=24)), tmp_path)
    studies = studies_of({record.spec.trial: record for record in records.values()})
    for study in studies:
        spent = sum(cost(record) for record in study)
        assert 12 * EPOCHS - EPOCHS < spent <= 12 * EPOCHS
        assert len(study) == 12 + sum(EPOCHS - cost(record) for record in study) // EPOCHS
    assert sum(map(len, studies)) > 24
    kinds = Counter(record.trial.pruned if record.trial else None for record in records.values())
    assert kinds[True] > 2 and kinds[False] > 4 and kinds[None] > 0  # all kinds were tried
    assert rounds[:2] == [1, 2]  # the default for both, then one trial each
    assert sorted(record.spec.trial for record in records.values())[:3] == [0, 1, 2]


@pytest.mark.parametrize("method", ["tip_adapter", "tpt"])
def test_what_does_not_train_has_as_many_trials_as_its_budget(method: str, tmp_path: Path) -> None:
    """They cost no epochs: that must not be for ever."""
    made = asked(methods=[method], tasks=["embedded/base2new"], backbones=["embedded/clip"])
    records: dict[str, RunRecord] = {}
    while todo := proposals_of(made).state(tmp_path, lambda spec: records.get(spec.run_id))[1]:
        for spec in todo:
            failed = failed_record(spec, CPU, "error", ErrorInfo(phase="train", type="X", message="x"))
            figure = TrialFigure(metric="accuracy", validation=1.0, predictions_sha256="0" * 64)
            records[spec.run_id] = msgspec.structs.replace(failed, status="ok", error=None, trial=figure)
    assert [len(study) for study in studies_of({r.spec.trial: r for r in records.values()})] == [6, 6]


def test_a_search_without_all_its_trials_chooses_nothing(proposals: Proposals, tmp_path: Path) -> None:
    records, _ = search(proposals, tmp_path)
    by_index = {record.spec.trial: record for record in records.values()}
    assert missing(proposals.tuning, by_index) == []
    *_, last = indices_of(proposals.tuning, by_index)[1]
    del by_index[last]
    assert missing(proposals.tuning, by_index) == [last]
    with pytest.raises(KeyError, match=str(last)):
        chosen(by_index)


def test_what_is_chosen_late_is_a_sound_record(proposals: Proposals, tmp_path: Path) -> None:
    """Where many were ended early, there are more trials than a budget that is dealt out has."""
    [made] = asked().searches
    trial = msgspec.structs.replace(proposals.default, trial=40)
    final = made.final(trial, 1)
    assert final is not None
    assert (final.trial, searched(final).stage, searched(final).stop_below) == (40, "final", ())
    assert list(run_problems(failed_record(final, CPU, "error", ErrorInfo(phase="run", type="X", message="x")))) == []


def test_trials_that_failed_are_poor_ones(proposals: Proposals, tmp_path: Path) -> None:
    """They count as tried: a study of failures alone is random no longer than another."""
    error = ErrorInfo(phase="train", type="Diverged", message="x")
    records: dict[str, RunRecord] = {}

    def record_of(spec: RunSpec) -> RunRecord | None:
        return records.get(spec.run_id)

    while todo := proposals.state(tmp_path, record_of)[1]:
        records |= {spec.run_id: failed_record(spec, CPU, "diverged", error) for spec in todo}
    journals = [proposals._study(tmp_path, number).get_trials() for number in range(2)]
    assert [[trial.state.name for trial in trials] for trials in journals] == [["PRUNED"] * 6] * 2
    found = chosen({record.spec.trial: record for record in records.values()})
    assert [record.spec.trial for record in found] == [0, 0]


def test_a_look_at_a_search_writes_nothing(proposals: Proposals, journals: Path) -> None:
    """It is what a dry run does, while another command may hold the folder."""
    records, _ = search(proposals, journals)
    by_index = {record.spec.trial: record for record in records.values()}

    def record_of(spec: RunSpec) -> RunRecord | None:
        return None if spec.trial > 4 else records.get(spec.run_id)

    written, nowhere = {path: path.read_bytes() for path in journals.iterdir()}, journals.with_name("nowhere")
    for folder in (journals, nowhere):
        done, todo = proposals.state(folder, record_of, write=False)
        assert [sorted(done), [spec.trial for spec in todo]] == [[0, 1, 2, 3, 4], [5, 6]]
        assert todo == [by_index[5].spec, by_index[6].spec]
    assert not nowhere.exists()
    assert {path: path.read_bytes() for path in journals.iterdir()} == written


def test_reading_a_journal_adds_nothing_to_it(proposals: Proposals, journals: Path) -> None:
    records, _ = search(proposals, journals)
    sizes = [path.stat().st_size for path in sorted(journals.iterdir())]
    assert proposals.state(journals, lambda spec: records.get(spec.run_id))[1] == []
    assert [path.stat().st_size for path in sorted(journals.iterdir())] == sizes


def test_journals_that_cannot_be_written_are_one_line(proposals: Proposals, journals: Path) -> None:
    journals.write_text("a file")
    for what in (lambda: search(proposals, journals), lambda: proposals.forget(journals)):
        with pytest.raises(PeftmarkError, match=r"cannot write the studies' journals into .*journals") as error:
            what()
        assert "\n" not in str(error.value)


def test_a_pipe_is_no_journal(proposals: Proposals, journals: Path) -> None:
    """And nothing waits for it."""
    undisturbed, _ = search(proposals, journals)
    for path in journals.iterdir():
        path.unlink()
        os.mkfifo(path)
    done, todo = proposals.state(journals, lambda spec: undisturbed.get(spec.run_id))
    assert (len(done), todo) == (len(undisturbed), [])


def test_validations_are_counted_beforehand(toy_plugin: Path) -> None:
    """One an epoch of each trial; a trial that ended early says nothing of how fast a machine is."""
    request: dict[str, Any] = {"methods": ["linear"], "tasks": ["embedded/digits"], "backbones": ["embedded/vit"]}
    made = {tuner: asked(**request, tuner=tuner) for tuner in ("halton", "optuna")}
    images = {tuner: estimate(each) for tuner, each in made.items()}
    sizes = TASKS["embedded/digits"]("embedded/digits").expected_sizes()
    assert sizes is not None
    assert images["optuna"].trained == images["halton"].trained
    assert images["optuna"].evaluated - images["halton"].evaluated == 11 * (EPOCHS - 1) * sizes[1]
    [default] = [spec for spec in made["optuna"].specs if isinstance(spec, RunSpec)]
    record = msgspec.structs.replace(made_up(default), time_s=Time(train=2.0))
    assert images_per_second([record]) == (EPOCHS * (sizes[0] + sizes[1])) / 2
    assert record.trial is not None
    pruned = msgspec.structs.replace(record, trial=msgspec.structs.replace(record.trial, pruned=True))
    assert images_per_second([pruned]) is None


def test_other_data_are_another_search(proposals: Proposals, journals: Path) -> None:
    search(proposals, journals)
    task = msgspec.structs.replace(proposals.default.task, split_sha256="1" * 64)
    other = replace(proposals, default=msgspec.structs.replace(proposals.default, task=task))
    assert not {other._journal(journals, n) for n in range(2)} & set(journals.iterdir())
    proposals.forget(journals)
    assert list(journals.iterdir()) == []


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


def test_a_third_at_most_is_random() -> None:
    assert [startup(trials) for trials in (1, 2, 5, 6, 10, 15, 30)] == [1, 1, 1, 2, 3, 5, 10]


def test_it_says_where_it_is_random_search(toy_plugin: Path) -> None:
    assert [asked(trials=trials, studies=3).notes for trials in (3, 15, 33)] == [
        ["optuna: studies of one trial are the default alone, nothing is searched"],
        [
            "optuna: of each study's 5 trials (and more where some end early) the default is the first; TPE proposes "
            "the others, which from so few is as good as random search"
        ],
        [
            "optuna: of each study's 11 trials (and more where some end early) the default is the first, 2 more are "
            "drawn at random, TPE proposes the others"
        ],
    ]
    assert asked(tuner="halton").notes == []


def test_what_failed_is_run_again_where_that_is_asked(proposals: Proposals, tmp_path: Path) -> None:
    """And what follows from it stays what it is."""
    [made], store = asked().searches, Store(tmp_path / "results")
    store.root.mkdir()
    while more := next_trials([made], Found(store, write=True)):
        for spec in more:
            store.write(made_up(spec))
    whole = {path.name for path in store.root.glob("*.json")}
    crashed = ErrorInfo(phase="train", type="X", message="x")
    third = made.state(Found(store))[0][3].spec
    store.write(failed_record(third, CPU, "error", crashed))
    assert next_trials([made], Found(store)) == []

    def made_anew(existing: str) -> set[str]:
        found = Found(store, existing, write=True)
        while more := next_trials([made], found):
            for spec in more:
                store.write(made_up(spec))
            found.add(spec.run_id for spec in more)
        return {f"{name}.json" for name in found.made}

    failed = {f"{record.run_id}.json" for record in store.load()[0] if record.status != "ok"}
    assert len(failed) < len(whole) / 2
    assert made_anew("retry") == failed
    forget([made], store)
    assert made_anew("overwrite") == whole == {path.name for path in store.root.glob("*.json")}


def test_later_trials_depend_on_what_was_found(toy_plugin: Path, tmp_path: Path) -> None:
    """Those at random do not."""
    proposals = proposals_of(asked(trials=24))
    one, _ = search(proposals, tmp_path / "one")
    other, _ = search(proposals, tmp_path / "other", best_rate=0.001)
    rates = [
        [searched(record.spec).learning_rate for record in studies_of({r.spec.trial: r for r in records.values()})[0]]
        for records in (one, other)
    ]
    same = [a == b for a, b in zip(*rates, strict=False)]
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

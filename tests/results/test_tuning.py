"""Searches: how trials are dealt, what a study chooses, and which runs belong to one search."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftmark.errors import PeftmarkError
from peftmark.results import RunRecord, RunSpec, TrialFigure, TuningSpec, decode_record, encode_record
from peftmark.results.tuning import best, chosen, deal, dealt, number_of_trials, search_key, tuning_of
from peftmark.results.validation import run_problems

Make = Callable[..., RunRecord]
replace = msgspec.structs.replace
HALTON = TuningSpec(
    stage="trial",
    tuner="halton",
    trials=6,
    studies=2,
    space={"learning_rate": "log-uniform from 0.001 to 0.1", "rank": "whatever"},
    learning_rate=0.01,
    points_sha256="ab" * 32,
)


def searched(spec: RunSpec, trial: int, **changes: Any) -> RunSpec:
    return replace(spec, trial=trial, tuning=replace(HALTON, **changes))


def trial(record: Make, spec: RunSpec, index: int, validation: float | None, **figure: Any) -> RunRecord:
    """A trial's record; one without a figure failed."""
    made = record()
    of_trial = searched(spec, index)
    found = None
    if validation is not None:
        found = TrialFigure(metric="accuracy", validation=validation, predictions_sha256="0" * 64, **figure)
    status = "diverged" if found is None else "ok"
    return replace(made, run_id=of_trial.run_id, spec=of_trial, status=status, quality=None, trial=found)


@given(st.integers(1, 6), st.integers(1, 8), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_trials_are_dealt_evenly_and_the_default_to_each(studies: int, each: int, points: str) -> None:
    trials = studies * each
    hands = deal(trials, studies, points)
    assert [len(hand) for hand in hands] == [each] * studies
    seen = Counter(index for hand in hands for index in hand)
    assert seen.pop(0) == studies
    assert seen == Counter(range(1, number_of_trials(trials, studies)))
    assert all(hand == tuple(sorted(hand)) for hand in hands)


def test_the_deal_is_a_hash_s() -> None:
    """Written out: it must be the same on every machine, and is nobody's choice."""
    points = "ab" * 32
    order = sorted(range(1, 5), key=lambda index: hashlib.sha256(f"{points} {index}".encode()).hexdigest())
    assert deal(6, 2, points) == [(0, *sorted(order[::2])), (0, *sorted(order[1::2]))]
    assert deal(15, 3, "a" * 64) != deal(15, 3, "b" * 64)
    assert deal(5, 1, points) == [(0, 1, 2, 3, 4)]


@pytest.mark.parametrize(("trials", "studies"), [(7, 2), (2, 3), (4, 0)])
def test_what_cannot_be_dealt(trials: int, studies: int) -> None:
    with pytest.raises(ValueError, match="cannot be dealt evenly"):
        deal(trials, studies, "")


def test_the_best_trial(record: Make, spec: RunSpec) -> None:
    trials = [trial(record, spec, index, value) for index, value in enumerate([50.0, None, 70.0, 70.0, 60.0])]
    assert best(trials) is trials[2]  # the earlier of equal ones
    assert best(reversed(trials)) is trials[2]
    assert best([trials[1]]) is None


def test_of_errors_the_lowest_is_best(record: Make, spec: RunSpec) -> None:
    trials = [trial(record, spec, index, value, higher_is_better=False) for index, value in enumerate([5.0, 2.0, 3.0])]
    assert best(trials) is trials[1]


def test_what_was_pruned_is_not_chosen(record: Make, spec: RunSpec) -> None:
    trials = [trial(record, spec, 0, 10.0), trial(record, spec, 1, 90.0, pruned=True)]
    assert best(trials) is trials[0]


def test_each_study_chooses_among_its_own(record: Make, spec: RunSpec) -> None:
    first, second = dealt(HALTON)
    values = dict.fromkeys(range(5), 10.0) | {first[1]: 40.0, second[2]: 30.0}
    trials = {index: trial(record, spec, index, value) for index, value in values.items()}
    assert [found.spec.trial for found in chosen(trials)] == [first[1], second[2]]
    trials[0] = trial(record, spec, 0, 99.0)
    assert [found.spec.trial for found in chosen(trials)] == [0, 0]
    failed = {index: trial(record, spec, index, None) for index in trials}
    assert [found.spec.trial for found in chosen(failed)] == [0, 0]
    del trials[second[1]]
    with pytest.raises(KeyError):
        chosen(trials)


def test_a_search_is_what_its_runs_have_in_common(spec: RunSpec) -> None:
    base = searched(spec, 0)
    rank = replace(base.method, config={**base.method.config, "rank": 99})
    same = [
        searched(spec, 3, learning_rate=0.5),
        replace(base, method=rank),
        replace(base, seed=5),
        searched(spec, 1, stage="final"),
        replace(base, task=replace(base.task, split_sha256="1" * 64)),  # of another draw
    ]
    assert {search_key(run) for run in same} == {search_key(base)}
    other = [
        replace(base, method=replace(base.method, config={**base.method.config, "targets": ["k"]})),
        replace(base, method=replace(base.method, version=9)),
        replace(base, task=replace(base.task, name="other")),
        replace(base, backbone=replace(base.backbone, weights="cd" * 32)),
        replace(base, protocol=replace(base.protocol, overrides={"epochs": 2})),
        searched(spec, 0, trials=8),
        searched(spec, 0, studies=1),
        searched(spec, 0, tuner="optuna"),
        searched(spec, 0, points_sha256="cd" * 32),
        searched(spec, 0, space={**HALTON.space, "rank": "another range"}),
    ]
    assert len({search_key(run) for run in [base, *other]}) == len(other) + 1
    with pytest.raises(ValueError, match="belongs to no search"):
        search_key(spec)
    assert tuning_of(spec) is None


def test_a_trial_has_no_quality_and_others_have_no_figure_of_a_trial(record: Make, spec: RunSpec) -> None:
    good = trial(record, spec, 1, 50.0)
    assert decode_record(encode_record(good), "f.json") == good
    tested = record()
    for wrong, match in [
        (replace(good, trial=None), "a trial's figure if and only if"),
        (replace(good, trial=None, quality=tested.quality), "a trial has none"),
        (replace(tested, trial=good.trial), "a trial's figure if and only if"),
    ]:
        with pytest.raises(PeftmarkError, match=match):
            decode_record(encode_record(wrong), "f.json")


@pytest.mark.parametrize(
    ("index", "changes", "problem"),
    [
        (5, {}, "a search of 6 trials in 2 studies has no trial 5"),
        (1, {"studies": 4}, "6 trials cannot be dealt evenly into 4 studies"),
        (1, {"trials": 0}, "0 trials cannot be dealt evenly into 2 studies"),
        (1, {"study": 2}, "there is no study 2 of 2"),
        (1, {"study": 1}, "trial 1 is none of study 1 of 2"),
        (0, {"study": 0}, "trial 0 is none of study 0 of 2"),
        (1, {"learning_rate": 0.0}, "the learning rate is 0.0"),
        (1, {"points_sha256": "new"}, "the points' hash 'new' is no sha256"),
    ],
)
def test_searches_that_cannot_be(
    record: Make, spec: RunSpec, index: int, changes: dict[str, Any], problem: str
) -> None:
    made = trial(record, spec, index, 50.0)
    made = replace(made, spec=searched(spec, index, **changes))
    assert list(run_problems(made)) == [problem]


def test_figures_of_searches_that_cannot_be(record: Make, spec: RunSpec) -> None:
    good = trial(record, spec, 4, 50.0)
    assert list(run_problems(good)) == []
    assert list(run_problems(trial(record, spec, 4, 101.0))) == ["validation is 101.0, which is no percentage"]
    assert list(run_problems(trial(record, spec, 4, 101.0, unit="pixels"))) == []
    assert list(run_problems(replace(good, params=None))) == ["a record of status ok has params and storage"]
    unknown = replace(good, trial=TrialFigure(metric="accuracy", validation=1.0, predictions_sha256="x"))
    assert list(run_problems(unknown)) == ["the predictions' hash 'x' is no sha256"]
    tested = record()
    final = replace(tested, spec=searched(spec, 1, stage="final"))
    assert tested.quality is not None
    assert list(run_problems(final)) == [
        "what a search chose trains on the validation data: a figure on these says nothing"
    ]
    assert list(run_problems(replace(final, quality=replace(tested.quality, validation=None)))) == []

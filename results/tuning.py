"""Searches under an equal budget: how trials are dealt into studies, and what each study chooses.

A budget of K trials in S studies is K - S + 1 runs: a search's first trial, the method's default, stands in every
study, and the others are dealt by a hash, so that what a study sees of the space is nobody's choice (after the external
tuning of AlgoPerf, Dahl et al. 2023, arXiv:2306.07179). One study of K trials is a search without studies.

A tuner that finds its own trials has them a study at a time, until the epochs of K / S trials are spent: one that was
ended early has cost what it trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import cast

from .record import RunRecord, RunSpec, TuningSpec, canonical_json


def tuning_of(spec: RunSpec) -> TuningSpec | None:
    """Which search a run belongs to; None of most runs."""
    return spec.tuning or None


def search_key(spec: RunSpec) -> str:
    """What the trials of a search and the runs of what it chose have in common, and no others, as a sha256.

    Raises:
        ValueError: of a run that belongs to no search.
    """
    tuning = tuning_of(spec)
    if tuning is None:
        raise ValueError(f"run {spec.run_id} belongs to no search")
    fixed = {key: value for key, value in spec.method.config.items() if key not in tuning.space}
    common = [
        *(spec.method.name, spec.method.version, fixed, spec.backbone, spec.task.name, spec.task.version),
        *(spec.protocol, tuning.tuner, tuning.trials, tuning.studies, tuning.space, tuning.points_sha256),
    ]
    return hashlib.sha256(canonical_json(common)).hexdigest()


def number_of_trials(trials: int, studies: int) -> int:
    """Runs of a budget of `trials` in `studies`, which have the first one in common."""
    return trials - studies + 1


def deal(trials: int, studies: int, points_sha256: str) -> list[tuple[int, ...]]:
    """The trials of each study, by index: 0 in each, the others by a hash; the same for every search of the budget.

    Raises:
        ValueError: where the trials cannot be dealt evenly.

    >>> deal(15, 3, "a" * 64)
    [(0, 2, 8, 9, 12), (0, 1, 6, 7, 11), (0, 3, 4, 5, 10)]
    """
    if studies < 1 or trials < studies or trials % studies:
        raise ValueError(f"{trials} trials cannot be dealt evenly into {studies} studies")

    def place(trial: int) -> str:
        return hashlib.sha256(f"{points_sha256} {trial}".encode()).hexdigest()

    others = sorted(range(1, number_of_trials(trials, studies)), key=place)
    return [(0, *sorted(others[study::studies])) for study in range(studies)]


def dealt(tuning: TuningSpec) -> list[tuple[int, ...]]:
    """The trials of each study of a search that deals them out."""
    return deal(tuning.trials, tuning.studies, tuning.points_sha256 or "")


def is_spent(record: RunRecord) -> bool:
    """Whether it is of a trial that failed once it trained: it has cost a trial, as one that came to its end has.

    One that failed before, for want of its data, says nothing of its configuration.
    """
    return record.spec.is_trial and record.error is not None and record.error.phase not in ("data", "setup")


def finds_its_own(tuning: TuningSpec) -> bool:
    """Whether trials follow from earlier ones of their study, and are not dealt out from a list."""
    return tuning.points_sha256 is None


def index_in(study: int, number: int, studies: int) -> int:
    """The index in its search of a trial that was found for a study; `number` 0 is the default, which all have.

    >>> [index_in(1, number, 3) for number in range(4)]
    [0, 2, 5, 8]
    """
    return 1 + study + studies * (number - 1) if number else 0


def epochs_of(record: RunRecord) -> int:
    """That a trial trained, in all its phases; 0 where it failed, or its method does not train."""
    if record.trial is None:
        return 0
    return sum(phase.epochs for phase in record.phases) if record.phases else len(record.trial.curve)


def walk(tuning: TuningSpec, trials: Mapping[int, RunRecord], study: int) -> tuple[tuple[int, ...], int | None]:
    """The trials of a study that finds its own, by index, and the index of the one that it wants next.

    None where less than a whole trial's epochs are left. One that failed has cost a whole one.
    """
    whole = max([1, *(epochs_of(each) for each in trials.values() if each.trial and not each.trial.pruned)])
    left, found = tuning.trials // tuning.studies * whole, list[int]()
    while left >= whole:
        index = index_in(study, len(found), tuning.studies)
        if index not in trials:
            return tuple(found), index
        found.append(index)
        figure = trials[index].trial
        left -= max(epochs_of(trials[index]), 1) if figure and figure.pruned else whole
    return tuple(found), None


def missing(tuning: TuningSpec, trials: Mapping[int, RunRecord]) -> list[int]:
    """The trials, by index, that a search still needs; where it finds its own, more may follow from them."""
    if not finds_its_own(tuning):
        return sorted({index for study in dealt(tuning) for index in study} - trials.keys())
    wanted = {walk(tuning, trials, study)[1] for study in range(tuning.studies)}
    return sorted(index for index in wanted if index is not None)


def studies_of(tuning: TuningSpec, trials: Mapping[int, RunRecord]) -> list[tuple[int, ...]]:
    """The trials of each study of a search, by index; where it finds its own, those that there are."""
    if not finds_its_own(tuning):
        return dealt(tuning)
    return [walk(tuning, trials, study)[0] for study in range(tuning.studies)]


def best(trials: Iterable[RunRecord]) -> RunRecord | None:
    """The trial with the best validation figure at its last epoch, the earliest of equal ones; None where all failed.

    A trial that diverged, ran out of memory or crashed has cost a trial and is never the best.
    """
    done = [trial for trial in trials if trial.trial is not None and not trial.trial.pruned]

    def worth(record: RunRecord) -> tuple[float, int]:
        figure = record.trial
        assert figure is not None
        return (-figure.validation if figure.higher_is_better else figure.validation, record.spec.trial)

    return min(done, key=worth, default=None)


def chosen(trials: Mapping[int, RunRecord]) -> list[RunRecord]:
    """What each study of one search chooses among its `trials`, by index: all of its own are there.

    Where all trials of a study failed it is the default, whose final run then says so.

    Raises:
        KeyError: where a trial is missing.
    """
    tuning = cast(TuningSpec, next(iter(trials.values())).spec.tuning)
    if absent := missing(tuning, trials):
        raise KeyError(absent[0])
    studies = [[trials[index] for index in study] for study in studies_of(tuning, trials)]
    return [best(study) or study[0] for study in studies]

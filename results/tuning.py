"""Searches under an equal budget: how trials are dealt into studies, and what each study chooses.

A budget of K trials in S studies is K - S + 1 runs: a search's first trial, the method's default, stands in every
study, and the others are dealt by a hash, so that what a study sees of the space is nobody's choice (after the external
tuning of AlgoPerf, Dahl et al. 2023, arXiv:2306.07179). One study of K trials is a search without studies.
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


def studies_of(trials: Mapping[int, RunRecord]) -> list[list[RunRecord]]:
    """The trials of one search, by index, in their studies: dealt out, or each its study's own, the default in all.

    Raises:
        KeyError: where a trial that is dealt out is missing.
    """
    tuning = cast(TuningSpec, next(iter(trials.values())).spec.tuning)
    if tuning.points_sha256 is not None:
        return [[trials[index] for index in study] for study in dealt(tuning)]
    of_studies = [(trial, cast(TuningSpec, trial.spec.tuning).study) for _, trial in sorted(trials.items())]
    return [[trial for trial, own in of_studies if own in (None, study)] for study in range(tuning.studies)]


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
        KeyError: where a trial that is dealt out is missing.
    """
    return [best(study) or study[0] for study in studies_of(trials)]

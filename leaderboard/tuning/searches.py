"""The searches behind records: which trials belong together, what each study chose, and the runs that test it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...results import RunRecord, TuningSpec, canonical_json
from ...results.tuning import chosen, dealt, finds_its_own, missing, search_key, studies_of, tuning_of
from ..configurations import grouped

STALE = "of a trial that its search no longer chooses"
OTHER_TRIALS = "a trial with another seed or split than most of its search have"
NOT_DEALT = "of a search whose budget does not hold such a trial"

MOST_TRIALS = 10_000
"""More are no search's: what a record says is not trusted to be."""


@dataclass(frozen=True, order=True)
class Budget:
    """What a search may spend: rows of one budget are ranked among themselves."""

    trials: int
    studies: int
    tuner: str

    @property
    def badge(self) -> str:
        by = "" if self.tuner == "halton" else f" by {self.tuner}"
        return f"tuned{by}, {self.trials} trials"

    @property
    def slug(self) -> str:
        return f"{self.tuner}-{self.trials}-{self.studies}"

    @property
    def words(self) -> str:
        return f"{self.trials} trials{f' in {self.studies} studies' if self.studies > 1 else ''}"


@dataclass(frozen=True)
class Search:
    """The search of one method on one backbone and task.

    Attributes:
        trials: by index; of one seed and split. Not necessarily all that the budget has.
        finals: the runs of what was chosen, by the index of the trial that they are of.
    """

    key: str
    trials: Mapping[int, RunRecord]
    finals: Mapping[int, tuple[RunRecord, ...]]

    @property
    def records(self) -> list[RunRecord]:
        """Of its trials, then of its final runs."""
        finals = [run for index in sorted(self.finals) for run in self.finals[index]]
        return [*(self.trials[index] for index in sorted(self.trials)), *finals]

    @cached_property
    def first(self) -> RunRecord:
        """One of them: what all have in common can be read of it."""
        return self.records[0]

    @cached_property
    def tuning(self) -> TuningSpec:
        tuning = tuning_of(self.first.spec)
        assert tuning is not None
        return tuning

    @property
    def budget(self) -> Budget:
        return Budget(self.tuning.trials, self.tuning.studies, self.tuning.tuner)

    @property
    def fixed(self) -> dict[str, Any]:
        """What of the method's configuration is not searched."""
        return {key: value for key, value in self.first.spec.method.config.items() if key not in self.tuning.space}

    @property
    def row(self) -> bytes:
        """What the searches of a row have in common besides the method, whose version and protocol are not in it."""
        return canonical_json([self.fixed, self.budget.words, self.tuning.tuner, self.tuning.space])

    @cached_property
    def studies(self) -> list[tuple[int, ...]]:
        """The trials of each study, by index; where a tuner proposes them, those that there are."""
        return studies_of(self.tuning, self.trials)

    @cached_property
    def missing(self) -> list[int]:
        """Trials without a record; one that was cancelled has none that says anything."""
        return missing(self.tuning, {index: run for index, run in self.trials.items() if run.status != "cancelled"})

    @cached_property
    def choices(self) -> list[int] | None:
        """The trial that each study chose, by index; None where trials are missing."""
        return None if self.missing else [trial.spec.trial for trial in chosen(self.trials)]

    @property
    def indices(self) -> list[int]:
        """Of all trials that have a record or final runs."""
        return sorted({*self.trials, *self.finals})

    @property
    def seeds(self) -> list[int]:
        """Of the final runs."""
        return sorted({run.spec.seed for runs in self.finals.values() for run in runs})

    def studies_of(self, trial: int) -> list[int]:
        """The studies that a trial was dealt into, counted from 1."""
        return [number for number, study in enumerate(self.studies, 1) if trial in study]

    def chosen_by(self, trial: int) -> list[int]:
        """The studies that chose a trial, counted from 1; none where that is not known."""
        return [number for number, choice in enumerate(self.choices or (), 1) if choice == trial]

    @property
    def stale(self) -> list[RunRecord]:
        """Final runs of what no study chooses, or with other settings than that trial has: trials were made anew."""
        choices = self.choices
        if choices is None:
            return []
        return [
            run
            for index, runs in self.finals.items()
            for run in runs
            if index not in choices or _settings(run) != _settings(self.trials[index])
        ]

    def settings(self, trial: int) -> dict[str, Any]:
        """The values of what is searched, of a trial that has a record or final runs."""
        run = self.trials.get(trial) or self.finals[trial][0]
        tuning = tuning_of(run.spec)
        assert tuning is not None
        config = run.spec.method.config
        return {"learning_rate": tuning.learning_rate} | {
            key: config[key] for key in sorted(tuning.space) if key in config
        }


def make_searches(records: Iterable[RunRecord]) -> tuple[dict[str, Search], dict[str, str]]:
    """All searches that records are of, by key, and the ids of runs that are left out of them, with the reason."""
    of_search = [run for run in records if tuning_of(run.spec) is not None]
    searches: dict[str, Search] = {}
    left_out: dict[str, str] = {}
    for key, runs in grouped(of_search, lambda run: search_key(run.spec)).items():
        known = _known(runs)
        left_out |= {run.run_id: NOT_DEALT for run in runs if run.spec.trial not in known}
        runs = [run for run in runs if run.spec.trial in known]
        if not runs:
            continue
        trials, others = _of_one_kind([run for run in runs if run.spec.is_trial])
        left_out |= {run.run_id: OTHER_TRIALS for run in others}
        finals = grouped((run for run in runs if not run.spec.is_trial), lambda run: run.spec.trial)
        search = Search(
            key,
            {run.spec.trial: run for run in trials},
            {index: tuple(sorted(runs, key=lambda run: run.spec.seed)) for index, runs in finals.items()},
        )
        left_out |= {run.run_id: STALE for run in search.stale}
        searches[key] = search
    return searches, left_out


def _known(runs: Sequence[RunRecord]) -> set[int]:
    """The trials that the studies of a search have, by index; none where its budget cannot be dealt."""
    tuning = tuning_of(runs[0].spec)
    if tuning is None or not 1 <= tuning.studies <= tuning.trials <= MOST_TRIALS:
        return set()
    if finds_its_own(tuning):
        return {run.spec.trial for run in runs}
    try:
        return {index for study in dealt(tuning) for index in study}
    except ValueError:
        return set()


def _settings(run: RunRecord) -> dict[str, Any]:
    """The values of what is searched."""
    tuning = tuning_of(run.spec)
    assert tuning is not None
    config = run.spec.method.config
    return {"learning_rate": tuning.learning_rate} | {key: config[key] for key in sorted(tuning.space) if key in config}


def _of_one_kind(trials: Sequence[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Trials are compared on one validation split only: those of the commonest seed and split, and the others."""

    def kind(run: RunRecord) -> tuple[int, str]:
        return run.spec.seed, run.spec.task.split_sha256

    counts = Counter(map(kind, trials))
    common = min(counts, key=lambda each: (-counts[each], each), default=None)
    return [run for run in trials if kind(run) == common], [run for run in trials if kind(run) != common]

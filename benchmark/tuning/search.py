"""A search: the trials of one method on one backbone and task, and the runs of what they lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import PeftmarkError
from ...results import FINISHED, RunRecord, RunSpec, Store, decode_record
from ...results.files import read_regular
from ...results.tuning import chosen, is_spent
from .optuna_search import STUDIES, Proposals


@dataclass(frozen=True)
class Search:
    """The trials of one method on one backbone and task.

    Attributes:
        trials: that are known beforehand, by index, all with one seed.
        seeds: of the final runs; none of them is the trials'.
        final: the run that tests a trial's configuration, given the trial and a seed; None where the data of that seed
            are not there.
        proposals: where further trials come from, if what they try depends on what was tried before.
    """

    trials: tuple[RunSpec, ...]
    seeds: tuple[int, ...]
    final: Callable[[RunSpec, int], RunSpec | None]
    proposals: Proposals | None = None

    def state(self, found: Found) -> tuple[dict[int, RunRecord], list[RunSpec]]:
        """The trials that are done, by index, and those that can be run now."""
        if self.proposals is not None:
            return self.proposals.state(found.store.root / STUDIES, found, found.write)
        records = {spec.trial: found(spec) for spec in self.trials}
        done = {index: record for index, record in records.items() if record is not None}
        return done, [spec for spec in self.trials if spec.trial not in done]

    def finals(self, records: Mapping[int, RunRecord]) -> list[RunSpec]:
        """What is to be run when all trials are done: what each study chooses, with every seed, each run once."""
        trials = {record.spec.trial: record.spec for record in chosen(records)}
        runs = (self.final(trial, seed) for trial in trials.values() for seed in self.seeds)
        return [run for run in runs if run is not None]


class Found:
    """The records of trials that a results folder holds, where they are done.

    Args:
        existing: what a command makes anew of what there is, see `plan_state`.
        write: whether it holds the folder, and may write there what follows from the records.

    Attributes:
        made: ids of what the command has made, which count in any case.
        known: the records that were asked for, by id.
    """

    def __init__(self, store: Store, existing: str = "skip", write: bool = False, made: Iterable[str] = ()) -> None:
        self.store = store
        self.existing = existing
        self.write = write
        self.made = set(made)
        self.known: dict[str, RunRecord] = {}
        self.paths = store.paths()

    def add(self, made: Iterable[str]) -> None:
        """Ids of what was made since."""
        self.made |= set(made)
        self.paths = self.store.paths()

    def __call__(self, spec: RunSpec) -> RunRecord | None:
        """The trial's record; None where it is still to be run. One that cannot be read counts as none."""
        if spec.run_id in self.known:
            return self.known[spec.run_id]
        path: Path | None = self.paths.get(spec.run_id)
        if path is None or (self.existing == "overwrite" and spec.run_id not in self.made):
            return None
        try:
            record = decode_record(read_regular(path), path, spec)
        except (PeftmarkError, OSError):
            return None
        if self.existing == "retry" and record.status != "ok" and spec.run_id not in self.made:
            return None
        if record.status in FINISHED or is_spent(record):
            self.known[spec.run_id] = record
        return self.known.get(spec.run_id)


def forget(searches: Iterable[Search], store: Store) -> None:
    """Let searches begin anew, whatever their trials have led to."""
    for search in searches:
        if search.proposals is not None:
            search.proposals.forget(store.root / STUDIES)


def next_trials(searches: Iterable[Search], found: Found) -> list[RunSpec]:
    """Of searches whose trials depend on earlier ones: one trial of every study that is not at its end."""
    return [spec for search in searches if search.proposals is not None for spec in search.state(found)[1]]


def finals(searches: Iterable[Search], found: Found) -> tuple[list[RunSpec], int]:
    """The final runs of the searches whose trials are all done, and how many searches are not.

    Raises:
        PeftmarkError: where the trials of a search did not see the same data.
    """
    runs: list[RunSpec] = []
    open_searches = 0
    for search in searches:
        records, todo = search.state(found)
        if len({record.env.data_sha256 for record in records.values() if record.trial}) > 1:
            spec = search.trials[0]
            raise PeftmarkError(
                f"the trials of {spec.method.name} on {spec.task.name} did not all see the same data, which changed "
                f"between them: run them again with --existing overwrite"
            )
        if todo:
            open_searches += 1
        else:
            runs += search.finals(records)
    return runs, open_searches

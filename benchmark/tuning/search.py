"""A search: the trials of one method on one backbone and task, and the runs of what they lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import PeftmarkError
from ...results import FINISHED, RunRecord, RunSpec, Store, decode_record
from ...results.files import read_regular
from ...results.tuning import chosen, is_spent


@dataclass(frozen=True)
class Search:
    """The trials of one method on one backbone and task.

    Attributes:
        trials: by index, all with one seed.
        seeds: of the final runs; none of them is the trials'.
        final: the run that tests a trial's configuration, given its index and a seed; None where the data of that seed
            are not there.
    """

    trials: tuple[RunSpec, ...]
    seeds: tuple[int, ...]
    final: Callable[[int, int], RunSpec | None]

    def finals(self, records: Mapping[int, RunRecord]) -> list[RunSpec]:
        """What is to be run when all trials are done: what each study chooses, with every seed, each run once."""
        trials = dict.fromkeys(record.spec.trial for record in chosen(records))
        runs = (self.final(trial, seed) for trial in trials for seed in self.seeds)
        return [run for run in runs if run is not None]


def finals(searches: Iterable[Search], store: Store) -> tuple[list[RunSpec], int]:
    """The final runs of the searches whose trials are all done in a results folder, and how many searches are not.

    A record that cannot be read counts as none.

    Raises:
        PeftmarkError: where the trials of a search did not see the same data.
    """
    paths = store.paths()
    runs: list[RunSpec] = []
    open_searches = 0
    for search in searches:
        records = {}
        for spec in search.trials:
            record = _read(paths.get(spec.run_id), spec)
            if record is not None:
                records[spec.trial] = record
        if len({record.env.data_sha256 for record in records.values() if record.trial}) > 1:
            spec = search.trials[0]
            raise PeftmarkError(
                f"the trials of {spec.method.name} on {spec.task.name} did not all see the same data, which changed "
                f"between them: run them again with --existing overwrite"
            )
        if len(records) == len(search.trials):
            runs += search.finals(records)
        else:
            open_searches += 1
    return runs, open_searches


def _read(path: Path | None, spec: RunSpec) -> RunRecord | None:
    """The trial's record; None where it is still to be run."""
    if path is None:
        return None
    try:
        record = decode_record(read_regular(path), path, spec)
    except (PeftmarkError, OSError):
        return None
    return record if record.status in FINISHED or is_spent(record) else None

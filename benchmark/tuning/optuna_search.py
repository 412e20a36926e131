"""Searches by Optuna: each study proposes its next trial from what its earlier ones gave, and ends poor ones early.

The budget is that of any search, counted in epochs trained: K trials of full length in S studies. What a pruned trial
leaves is spent on more trials. A trial is an ordinary run, whose spec says after which epoch it is ended below which
score; so it can be carried out anywhere, and again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from ...errors import PeftmarkError
from ...methods.search_space import Dimension
from ...results import RunRecord, RunSpec, TuningSpec
from ...results.files import read_regular
from ...results.tuning import walk

if TYPE_CHECKING:
    import optuna

STUDIES = "studies"
"""Sub-folder of a results folder for the studies' journals."""

NAME = "study"
"""Of the only study in a journal."""

FEW = 10
"""Trials of a study of which TPE takes one alone for good (its γ): it tells little more than chance."""

COMPLETED = 2
"""Trials that must have come to their end before one is measured against them."""


@dataclass(frozen=True)
class Proposals:
    """What the studies of a search have in common.

    Attributes:
        key: of the search.
        default: its first trial, which stands in every study.
        values: of the default, by what is searched.
        make: the trial of some values: its index, its study, and below which scores it is ended.
        last: epochs of a trial's last phase, after each of which it is measured.
    """

    key: str
    default: RunSpec
    space: Mapping[str, Dimension]
    values: Mapping[str, Any]
    make: Callable[[Mapping[str, Any], int, int, tuple[float | None, ...]], RunSpec]
    last: int

    @property
    def tuning(self) -> TuningSpec:
        return cast(TuningSpec, self.default.tuning)

    def state(
        self, folder: Path, record_of: Callable[[RunSpec], RunRecord | None], write: bool = True
    ) -> tuple[dict[int, RunRecord], list[RunSpec]]:
        """The trials that are done, by index, and those to be run now, one a study; none where all budgets are spent.

        Args:
            folder: of the journals.
            record_of: what there is of a trial.
            write: whether the journals are kept up to date; else they are read where they are there.

        Raises:
            PeftmarkError: where they cannot be written.
        """
        default = record_of(self.default)
        if default is None:
            return {}, [self.default]
        done, todo = {0: default}, []
        with _writing(folder):
            for number in range(self.tuning.studies):
                study = self._study(folder, number) if write else self._copy(folder, number)
                for spec, record in self._trials(study, number, default, record_of):
                    if record is None:
                        todo.append(spec)
                    else:
                        done[spec.trial] = record
        return done, todo

    def forget(self, folder: Path) -> None:
        """Delete the journals: all trials are made anew."""
        with _writing(folder):
            for number in range(self.tuning.studies):
                self._journal(folder, number).unlink(missing_ok=True)

    def _journal(self, folder: Path, number: int) -> Path:
        """Of a study: on other data the default's is another run, and the search begins anew."""
        return folder / f"{self.default.run_id}-{number}.log"

    def _study(self, folder: Path, number: int) -> optuna.Study:
        """As its journal has it. A journal that cannot be read is made anew: records give the same study again."""
        path = self._journal(folder, number)
        with suppress(Exception):  # whatever what a killed command has left makes Optuna raise
            return self._read(path)
        folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return import_optuna().create_study(storage=_storage(path), study_name=NAME, direction="maximize")

    def _copy(self, folder: Path, number: int) -> optuna.Study:
        """The same in memory, where another command may hold the folder."""
        study = import_optuna().create_study(direction="maximize")
        with suppress(Exception):
            study.add_trials(self._read(self._journal(folder, number)).get_trials(deepcopy=False))
        return study

    def _read(self, path: Path) -> optuna.Study:
        if not read_regular(path, sys.maxsize).endswith(b"\n"):
            raise ValueError("half a line would become one with the next")
        study = import_optuna().load_study(study_name=NAME, storage=_storage(path))
        if any(trial.params.keys() != self.space.keys() for trial in study.get_trials(deepcopy=False)):
            raise ValueError("a trial was half proposed")
        return study

    def _trials(
        self,
        study: optuna.Study,
        number: int,
        default: RunRecord,
        record_of: Callable[[RunSpec], RunRecord | None],
    ) -> Iterator[tuple[RunSpec, RunRecord | None]]:
        """Those of a study but the default, with their records, until one has none or the budget is spent."""
        optuna = import_optuna()
        if not study.get_trials(deepcopy=False):
            study.add_trial(self._default_trial(default))
        records = {0: default}
        while (index := walk(self.tuning, records, number)[1]) is not None:
            asked, trials = len(records), study.get_trials(deepcopy=False)
            if len(trials) == asked:
                seed = f"{self.key} {number} {asked}".encode()
                study.sampler = optuna.samplers.TPESampler(
                    n_startup_trials=startup(self.tuning.trials // self.tuning.studies),
                    seed=int(hashlib.sha256(seed).hexdigest()[:8], 16),
                )
                proposed = study.ask()
                for name in self.space:
                    proposed.suggest_float(name, *SHARES)
                trials = study.get_trials(deepcopy=False)
            trial = trials[asked]
            values = {name: dimension.at(trial.params[name]) for name, dimension in self.space.items()}
            spec = self.make(values, index, number, self._stop_below(trials[:asked]))
            record = record_of(spec)
            yield spec, record
            if record is None:
                return
            if not trial.state.is_finished():
                self._tell(study, trial, record)
            records[index] = record

    def _stop_below(self, earlier: list[optuna.trial.FrozenTrial]) -> tuple[float | None, ...]:
        """The median of the trials that came to their end, after a third of the epochs; as Optuna's `MedianPruner`."""
        complete = [trial for trial in earlier if trial.state.name == "COMPLETE"]
        at = [
            [trial.intermediate_values[epoch] for trial in complete if epoch in trial.intermediate_values]
            for epoch in range(1, self.last)
        ]
        return tuple(
            median(values) if epoch > self.last // 3 and len(values) >= COMPLETED else None
            for epoch, values in enumerate(at, 1)
        )

    def _tell(self, study: optuna.Study, of_trial: optuna.trial.FrozenTrial, record: RunRecord) -> None:
        optuna = import_optuna()
        trial = optuna.trial.Trial(study, of_trial._trial_id)
        for epoch, score in _scores(record).items():
            trial.report(score, epoch)
        state, value = _end(record)
        study.tell(of_trial.number, value, state)

    def _default_trial(self, record: RunRecord) -> optuna.trial.FrozenTrial:
        optuna = import_optuna()
        state, value = _end(record)
        return optuna.trial.create_trial(
            state=state,
            value=value,
            params={name: min(self.space[name].share_of(self.values[name]), SHARES[1]) for name in self.space},
            distributions={name: optuna.distributions.FloatDistribution(*SHARES) for name in self.space},
            intermediate_values=_scores(record),
        )


SHARES = (0.0, 1 - 2**-24)
"""Of the way through a dimension: the end is not included."""


def _scores(record: RunRecord) -> dict[int, float]:
    """On the validation split after each epoch but the last; higher is better."""
    curve = record.trial.curve if record.trial else []
    return {int(entry["epoch"]): entry["validation_score"] for entry in curve if "validation_score" in entry}


def _end(record: RunRecord) -> tuple[optuna.trial.TrialState, float | None]:
    """One that failed is worse than any that was ended early: to Optuna's ``FAIL``, it would never have been tried."""
    states = import_optuna().trial.TrialState
    if record.trial is None or record.trial.pruned:
        return states.PRUNED, None
    figure = record.trial
    return states.COMPLETE, figure.validation if figure.higher_is_better else -figure.validation


def startup(trials: int) -> int:
    """Of the trials of a study, those that are drawn at random, the default among them: a third at most, or one."""
    return max(trials // 3, 1)


def note(trials: int) -> str:
    """What a user should know of studies of so many trials."""
    drawn = startup(trials)
    if trials <= drawn:
        return "optuna: studies of one trial are the default alone, nothing is searched"
    first = f"optuna: of each study's {trials} trials (and more where some end early) the default is the first"
    first += f", {drawn - 1} more are drawn at random" if drawn > 1 else ""
    if trials > FEW:
        return f"{first}, TPE proposes the others"
    return f"{first}; TPE proposes the others, which from so few is as good as random search"


def import_optuna() -> Any:
    """Raises PeftmarkError where it is not installed."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise PeftmarkError("--tuner optuna needs Optuna: pip install 'peftmark[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot write the studies' journals into {folder} ({error.strerror})"
        raise PeftmarkError(f"{reason}: what is finished is kept, the same command goes on") from error


def _storage(path: Path) -> Any:
    storages = import_optuna().storages
    return storages.JournalStorage(storages.journal.JournalFileBackend(str(path), lock_obj=_FoldersLock()))


class _FoldersLock:
    """None of its own: a command that writes to a results folder holds the folder's, which dies with it."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass

"""A slice of a plan: what one job of a cluster carries out, by the local launcher, on a shared file system."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ...errors import PeftmarkError
from ...results import CostRecord, CostSpec, ErrorInfo, RunRecord, decode_cost, decode_record, write_atomically
from ..plan.runs import Spec
from .failure import record_failure
from .launchers import find_launcher
from .outcome import POSTPONED, Options, Outcome

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission


class Line(msgspec.Struct, frozen=True):
    """An outcome without its spec, which the reader knows."""

    id: str
    status: str
    figure: str | None
    seconds: float
    message: str | None

    def outcome(self, spec: Spec) -> Outcome:
        return Outcome(spec, self.status, self.figure, self.seconds, self.message)


class Journal:
    """Outcomes as lines of a file, which one machine appends to and another reads as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def open(self) -> None:
        """Create it; end the line that a killed process left half-written."""
        with self.path.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")

    def append(self, outcome: Outcome) -> None:
        line = Line(outcome.spec.id, outcome.status, outcome.figure, outcome.seconds, outcome.message)
        with self.path.open("ab") as stream:  # closed each time: only then do others see it, on NFS
            stream.write(msgspec.json.encode(line) + b"\n")

    def new(self) -> list[Line]:
        """What has been added since the last call, whole lines only."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._read)
                data = stream.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [line for line in map(_line, whole.splitlines()) if line is not None]


def _line(text: bytes) -> Line | None:
    try:
        return msgspec.json.decode(text, type=Line)
    except msgspec.DecodeError:  # half of one
        return None


def recorded(specs: Iterable[Spec], options: Options, since: Path) -> list[Outcome]:
    """Of the specs whose record is not older than the file `since`, the outcomes."""
    start = since.stat().st_mtime_ns  # by the file system's clock, as the records'
    outcomes = []
    for spec in specs:
        path = options.place(spec)
        try:
            if path.stat().st_mtime_ns < start:  # of before, to be made anew
                continue
            outcomes.append(Outcome.of(_decoded(spec, path), 0.0))
        except (FileNotFoundError, PeftmarkError):
            continue
    return outcomes


def _decoded(spec: Spec, path: Path) -> RunRecord | CostRecord:
    data = path.read_bytes()
    return decode_cost(data, path, spec) if isinstance(spec, CostSpec) else decode_record(data, path, spec)


class _TimeUp(Exception):
    pass


@dataclass
class Slice:
    """Specs to be carried out by one job, which may be requeued: what is finished is not run again.

    Attributes:
        options: with absolute paths.
        journal: the file that its outcomes go to.
        since: a file written before the first of its runs could start.
        seconds: what the job may take; the rest is requeued before that.
    """

    specs: list[Spec]
    options: Options
    journal: Path
    since: Path
    seconds: float

    def __call__(self) -> None:
        """Run what is not finished. When its time is nearly up no run is started, and the job requeues itself."""
        start = time.monotonic()
        self.fruitful, self.ended = False, set[str]()
        journal = Journal(self.journal)
        journal.open()
        left = self._left(journal)
        if not left:
            return
        # sent to jobs that are cancelled; submitit's own handler lets them go on
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGALRM, _time_up)
        signal.setitimer(signal.ITIMER_REAL, max(self.seconds - margin(self.seconds), 0.1))
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._run(left, journal, start + self.seconds - margin(self.seconds), Path(folder) / "until")
        except _TimeUp:
            self._left(journal)
            # these were started first and had all the time there is
            for spec in self._unfinished(left[: self.options.jobs]):
                message = f"longer than a job may take: launcher.time is {self.seconds / 60:g} minutes"
                error = ErrorInfo(phase="run", type="TimeoutError", message=message)
                self._say(journal, record_failure(spec, self.options, "timeout", error))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._unfinished(left):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # comes with the requeueing
            signal.raise_signal(_requeue_signal())

    def _run(self, specs: list[Spec], journal: Journal, end: float, until: Path) -> None:
        """Start runs as long as one that takes as long as the longest so far would be finished at the `end`."""
        longest = 0.0
        write_atomically(until, str(end).encode())
        with closing(find_launcher("local")(specs, replace(self.options, until=until))) as outcomes:
            for outcome in outcomes:
                if outcome.status == POSTPONED:
                    continue
                self._say(journal, outcome)
                if outcome.seconds > longest:
                    longest = outcome.seconds
                    write_atomically(until, str(end - longest).encode())

    def _say(self, journal: Journal, outcome: Outcome) -> None:
        journal.append(outcome)
        self.ended.add(outcome.spec.id)
        self.fruitful = True

    def _left(self, journal: Journal) -> list[Spec]:
        """What has not ended; a record that was written last, just before a job ended, gets its line."""
        self.ended |= {line.id for line in journal.new()}
        for outcome in recorded(self._unfinished(self.specs), self.options, self.since):
            self._say(journal, outcome)
        return self._unfinished(self.specs)

    def _unfinished(self, specs: Iterable[Spec]) -> list[Spec]:
        return [spec for spec in specs if spec.id not in self.ended]

    def checkpoint(self) -> DelayedSubmission | None:
        """What submitit requeues: the same, which skips what is finished; nothing where no run was finished."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self) if self.fruitful else None


def margin(seconds: float) -> float:
    """How long before its end a job stops."""
    return min(150.0, seconds / 10)  # Slurm's signals may come a minute early


def _end(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


def _time_up(*_: Any) -> NoReturn:
    raise _TimeUp


def _requeue_signal() -> int:
    from submitit.core.job_environment import JobEnvironment

    return JobEnvironment._usr_sig()

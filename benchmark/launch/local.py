"""The local launcher: long-lived worker processes on this machine."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from ...errors import PeftmarkError
from ...results import CostSpec, ErrorInfo, decode_cost, decode_record
from ...results.files import identity_of, read_regular
from ..plan.runs import Spec
from .failure import record_failure
from .outcome import Options, Outcome
from .pool import ATTEMPTS, Lost, Pool, Process
from .worker import carry_out, start


def launch(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
    """Carry out runs and profiles on `options.jobs` workers, yielding each as it ends, in no fixed order.

    A worker imports torch once and lives on; one that dies or exceeds the time limit is replaced, and its run gets a
    record that says so. Closing the iterator (Ctrl-C) stops the workers; every record written before stays.

    Raises:
        PeftmarkError: where it is given settings; it has none.
    """
    if options.launcher:
        raise PeftmarkError(f"--set launcher.{next(iter(options.launcher))}: the local launcher has no settings")
    placed = [(spec, options.place(spec)) for spec in specs]
    before = {path: _stamp(path) for path in options.places.values()}
    # places are told with every spec: a process reads all its options to start
    told = replace(options, places={}, folder=identity_of(options.results))
    pool = Pool(options.jobs, lambda: Process(start, carry_out, told), options.timeout_s)
    for (spec, place), ended in pool.run(placed):
        if not isinstance(ended, Lost):
            yield ended
        elif ended.why == "start":
            message = f"no worker can start ({ended.reason}; {ATTEMPTS} attempts)"
            yield Outcome(spec=spec, status="error", figure=None, seconds=0.0, message=message)
        else:
            # it may have ended after it had written the record, and before it could say so
            new = _stamp(place) != before.get(place)
            yield (_written(spec, place) if new else None) or _failed(spec, options, ended)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _written(spec: Spec, place: Path) -> Outcome | None:
    """Of the record that is there."""
    try:
        data = read_regular(place)
        record = decode_cost(data, place, spec) if isinstance(spec, CostSpec) else decode_record(data, place, spec)
    except (PeftmarkError, OSError):
        return None
    return Outcome.of(record, 0.0)


def _failed(spec: Spec, options: Options, lost: Lost) -> Outcome:
    if lost.why == "timeout":
        message = f"longer than --timeout {options.timeout_s:g} s"
        return record_failure(spec, options, "timeout", ErrorInfo(phase="run", type="TimeoutError", message=message))
    message = f"its worker ended by itself ({lost.reason}); -9 is often the system's out-of-memory killer"
    return record_failure(spec, options, "error", ErrorInfo(phase="run", type="WorkerDied", message=message))

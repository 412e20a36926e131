"""What a cluster's job does with its slice of a plan: time limits, what is finished already, the journal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftmark.benchmark.launch import slices, worker
from peftmark.benchmark.launch.outcome import POSTPONED, Options, Outcome
from peftmark.benchmark.launch.slices import Journal, Slice
from peftmark.benchmark.plan.runs import Request, Spec, plan
from peftmark.results import Store, decode_record

pytest.importorskip("submitit")

OPTIONS = Options(
    results=Path("nowhere"), device="cpu", jobs=2, timeout_s=None, save_adapters=False, predictions=False, plugins=()
)


@pytest.fixture
def specs(toy_plugin: Path) -> list[Spec]:
    request = Request(methods=["toy_full"], tasks=["toy/bright"], backbones=["toy/pixels"], seeds=range(10))
    return plan(request).specs


class Requeued(Exception):
    pass


@pytest.fixture
def requeues(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The signal that requeues a job is an exception; what a slice handles is as before afterwards."""

    def requeue(*_: Any) -> None:
        raise Requeued

    numbers = (signal.SIGUSR2, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGUSR2, requeue)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def made(specs: list[Spec], folder: Path, seconds: float, jobs: int = 1) -> Slice:
    (folder / "since").write_bytes(b"")
    options = replace(OPTIONS, results=folder / "results", jobs=jobs)
    return Slice(specs, options, folder / "journal", folder / "since", seconds)


def test_a_slice_at_its_time_limit(
    specs: list[Spec], tmp_path: Path, requeues: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are started until the longest so far would not be finished; then the job is requeued with the rest."""
    started = []

    def local(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
        assert options.until is not None
        for spec in specs:
            if time.monotonic() > float(options.until.read_text()):
                yield Outcome(spec, POSTPONED, None, 0.0, None)
            else:
                started.append(spec.seed)  # type: ignore[union-attr]
                yield Outcome(spec, "ok", None, 80.0 if len(started) % 3 == 0 else 1.0, None)

    monkeypatch.setattr(slices, "find_launcher", lambda name: local)
    each = made(specs, tmp_path, 80.0)
    with pytest.raises(Requeued):
        each()
    assert started == [0, 1, 2]
    again = each.checkpoint()
    assert again is not None
    assert again.function is each
    with pytest.raises(Requeued):
        again.function()
    assert started == [0, 1, 2, 3, 4, 5]
    assert [line.id for line in Journal(each.journal).new()] == [spec.id for spec in specs[:6]]


def test_a_run_that_is_longer_than_a_job(
    specs: list[Spec], tmp_path: Path, requeues: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began with the job and did not end in time: that is its record, and the rest is requeued."""

    def local(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
        yield Outcome(specs[1], "ok", None, 0.1, None)
        time.sleep(60)

    monkeypatch.setattr(slices, "find_launcher", lambda name: local)
    each = made(specs, tmp_path, 0.3, jobs=2)
    with pytest.raises(Requeued):
        each()
    lines = Journal(each.journal).new()
    assert [(line.id, line.status) for line in lines] == [(specs[1].id, "ok"), (specs[0].id, "timeout")]
    assert lines[1].message == "longer than a job may take: launcher.time is 0.005 minutes"
    [path] = (tmp_path / "results").glob("*.json")
    assert decode_record(path.read_bytes(), path).status == "timeout"
    assert each._unfinished(specs) == specs[2:]


def test_what_a_slice_finds_finished(
    specs: list[Spec], tmp_path: Path, requeues: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its journal says, and records that are not older than it; others are made anew."""
    from peftmark.benchmark.launch.failure import record_failure
    from peftmark.results import ErrorInfo

    ran = []

    def local(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
        ran.extend(spec.seed for spec in specs)  # type: ignore[union-attr]
        yield from (Outcome(spec, "ok", None, 0.1, None) for spec in specs)

    monkeypatch.setattr(slices, "find_launcher", lambda name: local)
    each = made(specs[:4], tmp_path, 60.0)
    error = ErrorInfo(phase="run", type="Some", message="thing")
    for spec in specs[:2]:
        record_failure(spec, each.options, "oom", error)
    old = each.options.place(specs[0])
    os.utime(old, (1, 1))
    Journal(each.journal).append(Outcome(specs[2], "ok", None, 0.1, None))
    with each.journal.open("ab") as stream:
        stream.write(b'{"id": "half')
    each()
    assert ran == [0, 3]
    told = [(line.id, line.status) for line in Journal(each.journal).new()]
    assert told == [(specs[2].id, "ok"), (specs[1].id, "oom"), (specs[0].id, "ok"), (specs[3].id, "ok")]
    assert each.checkpoint() is not None
    each()  # all is finished
    assert ran == [0, 3]
    assert each.checkpoint() is None


def test_a_journal_is_read_as_it_grows(specs: list[Spec], tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    assert reader.new() == []
    journal.append(Outcome(specs[0], "ok", "93.1", 2.5, "a\nb"))
    data = journal.path.read_bytes()
    with journal.path.open("ab") as stream:
        stream.write(data[:20])
    [line] = reader.new()
    assert line.outcome(specs[0]) == Outcome(specs[0], "ok", "93.1", 2.5, "a\nb")
    assert reader.new() == []
    with journal.path.open("ab") as stream:
        stream.write(data[20:] + b'{"id":')
    assert reader.new() == [line]
    journal.open()
    journal.append(Outcome(specs[1], "ok", None, 1.0, None))
    assert [line.id for line in reader.new()] == [specs[1].id]


def test_a_worker_starts_no_run_when_it_is_too_late(
    specs: list[Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = tmp_path / "until"
    monkeypatch.setattr(worker, "_options", replace(OPTIONS, results=tmp_path / "results", until=until))
    until.write_text(str(time.monotonic() - 0.001))
    assert worker.work(specs[0]) == Outcome(specs[0], POSTPONED, None, 0.0, None)
    assert not (tmp_path / "results").exists()
    until.write_text(str(time.monotonic() + 60))
    assert worker.work(specs[0]).status == "ok"


def test_temporary_files_of_jobs_are_not_deleted(tmp_path: Path) -> None:
    """A command that takes over running jobs must not take away what they are writing."""
    store, job = Store(tmp_path), tmp_path / ".launch" / "peftmark-1" / "job.json"
    writing = tmp_path / ".0123456789abcdef.json.abcdefgh.tmp"
    writing.write_bytes(b"{")
    job.parent.mkdir(parents=True)
    job.write_bytes(b"{}")
    store.remove_temporary_files()
    assert writing.exists()
    assert store.paths() == {}
    job.unlink()
    store.remove_temporary_files()
    assert not writing.exists()

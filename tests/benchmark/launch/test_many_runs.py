"""The launcher's own work, run by run, does not grow with how many there are: here, the runs take no time."""

from __future__ import annotations

import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from peftmark.benchmark.launch import local
from peftmark.benchmark.launch.outcome import Options, Outcome

OPTIONS = Options(
    results=Path("nowhere"), device="cpu", jobs=2, timeout_s=None, save_adapters=False, predictions=False, plugins=()
)


class Pool:
    """Ends one of `n` runs, and another whenever the launcher has told of one; the last first."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.waiting: list[tuple[Future[Outcome], Any]] = []

    def schedule(self, work: Any, args: tuple[Any], timeout: float | None) -> Future[Outcome]:
        future = Future[Outcome]()
        self.waiting.append((future, args[0]))
        if len(self.waiting) == self.n:
            self.end_one()
        return future

    def end_one(self) -> None:
        if self.waiting:
            future, spec = self.waiting.pop()
            future.set_result(Outcome(spec=spec, status="ok", figure=None, seconds=0.0, message=None))

    def stop(self) -> None: ...

    def join(self) -> None: ...


def seconds(n: int) -> float:
    pool, told = Pool(n), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "ProcessPool", lambda **options: pool)
        start = time.process_time()
        for outcome in local.launch(list(range(n)), OPTIONS):  # type: ignore[arg-type]
            told.append(outcome.spec)
            pool.end_one()
    assert told == list(range(n))[::-1]
    return time.process_time() - start


def test_ten_times_as_many_runs_take_about_ten_times_as_long() -> None:
    assert seconds(4000) < 40 * max(seconds(400), 0.01)  # nearly a hundred times, where each run looks at all others

"""The pool's own work, job by job, does not grow with how many there are: here, the jobs take no time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from peftmark.benchmark.launch.pool import Pool


class Prompt:
    """A worker that answers at once."""

    said: object = ""

    def start(self) -> None: ...

    def send(self, job: object) -> None:
        self.said = job

    def receive(self) -> object:
        return self.said

    def lives(self) -> bool:
        return True

    def kill(self) -> None: ...

    def end(self) -> str:
        return "exit code 0"


def one(workers: Sequence[Prompt], seconds: float) -> set[Prompt]:
    return {workers[-1]}


def seconds(n: int) -> float:
    start = time.process_time()
    assert list(Pool(2, Prompt, wait=one).run(range(n))) == [(i, i) for i in range(n)]
    return time.process_time() - start


def test_ten_times_as_many_runs_take_about_ten_times_as_long() -> None:
    assert seconds(4000) < 40 * max(seconds(400), 0.01)  # nearly a hundred times, where each run looks at all others

"""``python -m tools.simulated_cluster``: how busy the pool keeps a thousand workers, on runs of recorded durations.

The pool is the real one, and the time that it takes counts; workers are not, and time in which nothing happens is
passed over.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

import click

from peftmark.benchmark.launch.pool import Pool
from peftmark.commands.labels import label
from peftmark.results import RunSpec, Store

RECORDS = Path(__file__).parents[1] / "results" / "records"


class Cluster:
    """Simulated workers and their clock: real time, and what was passed over."""

    def __init__(self, start_s: float = 0.0) -> None:
        self.start_s = start_s
        self.passed = 0.0
        self.busy = 0.0
        self.last_handed = 0.0
        self.ends: list[float] = []
        """Of all jobs."""
        self._ends: list[tuple[float, int, SimulatedWorker]] = []
        self._order = itertools.count()
        self._begin = time.perf_counter()

    def clock(self) -> float:
        return time.perf_counter() - self._begin + self.passed

    def worker(self) -> SimulatedWorker:
        return SimulatedWorker(self)

    def speaks_after(self, seconds: float, worker: SimulatedWorker) -> None:
        heapq.heappush(self._ends, (self.clock() + seconds, next(self._order), worker))

    def wait(self, workers: Sequence[SimulatedWorker], seconds: float) -> set[SimulatedWorker]:
        """In place of `pool.heard`."""
        now, first = self.clock(), self._ends[0][0] if self._ends else float("inf")
        self.passed += max(min(first - now, seconds), 0.0)
        said, now = set(), self.clock()
        while self._ends and self._ends[0][0] <= now:
            said.add(heapq.heappop(self._ends)[2])
        return said


class SimulatedWorker:
    """Answers a job, a pair of whatever and its seconds, when these have passed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.says: object = ""

    def start(self) -> None:
        self.cluster.speaks_after(self.cluster.start_s, self)

    def send(self, job: tuple[object, float]) -> None:
        self.says = job
        self.cluster.busy += job[1]
        self.cluster.last_handed = self.cluster.clock()
        self.cluster.ends.append(self.cluster.last_handed + job[1])
        self.cluster.speaks_after(job[1], self)

    def receive(self) -> object:
        return self.says

    def lives(self) -> bool:
        return True

    def kill(self) -> None: ...

    def end(self) -> str:
        return "exit code 0"


def recorded() -> list[tuple[RunSpec, float]]:
    """The committed runs and the seconds that they took."""
    records, _ = Store(RECORDS).load()
    times = [(record.spec, record.time_s) for record in records if record.status == "ok"]
    return [(spec, t.setup + t.data + t.train + t.evaluation + t.tuning) for spec, t in times]


def simulate(workers: int, runs: int, start_s: float = 0.0) -> tuple[float, float, float]:
    """How it goes.

    Returns:
        The share of the workers' time that they are busy: to the very end, and without the last runs, when there is
        nothing left to hand out and ever fewer are at work; the simulated seconds of all.
    """
    jobs = list(itertools.islice(itertools.cycle(recorded()), runs))
    cluster = Cluster(start_s)
    pool = Pool(workers, cluster.worker, wait=cluster.wait, clock=cluster.clock)
    begin = cluster.clock()
    with open(os.devnull, "w") as nowhere:
        for number, ((spec, seconds), _) in enumerate(pool.run(jobs), 1):
            click.echo(f"[{number}/{runs}] {label(spec)}  {seconds:.1f} s", file=nowhere)
    took = cluster.clock() - begin
    after = sum(max(end - cluster.last_handed, 0.0) for end in cluster.ends)
    return cluster.busy / (workers * took), (cluster.busy - after) / (workers * (cluster.last_handed - begin)), took


@click.command()
@click.option("--workers", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=50_000, show_default=True)
@click.option("--start", "start_s", type=float, default=5.0, show_default=True, help="Seconds until a worker is ready.")
def main(workers: int, runs: int, start_s: float) -> None:
    """Simulate."""
    durations = sorted(seconds for _, seconds in recorded())
    begin = time.perf_counter()
    whole, handing_out, took = simulate(workers, runs, start_s)
    click.echo(
        f"{runs:,} runs of {durations[0]:.1f} to {durations[-1]:.1f} s (median {durations[len(durations) // 2]:.1f} s) "
        f"on {workers:,} workers: {took:,.0f} s, of which the pool itself takes {time.perf_counter() - begin:.1f} s"
    )
    click.echo(f"workers busy: {whole:.1%}; {handing_out:.1%} until the last run is handed out")


if __name__ == "__main__":
    main()

"""The pool: whatever a worker does, every job has one answer and the others go on.

Processes here evaluate expressions, and import nothing heavy.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from peftmark.benchmark.launch import pool
from peftmark.benchmark.launch.pool import Lost, Pool, Process
from peftmark.tools.simulated_cluster import simulate

DIE = "__import__('os').kill(__import__('os').getpid(), 9)"
CONNECTION = "next(o for o in __import__('gc').get_objects() if type(o).__name__ == 'Connection')"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Process]]:
    """All processes that a test starts; they must be gone at its end."""
    processes: list[Process] = []
    start = Process.start

    def noted(process: Process) -> None:
        processes.append(process)
        start(process)

    monkeypatch.setattr(Process, "start", noted)
    yield processes
    assert not any(process.lives() for process in processes if process._process.pid is not None)


def evaluator(prepare: str = "") -> Callable[[], Process]:
    """What makes a process that executes a text first, and evaluates one after another then."""
    return lambda: Process(exec, eval, prepare)


def answers(size: int, jobs: Sequence[str], timeout_s: float | None = None, prepare: str = "") -> dict[str, Any]:
    ended = list(Pool(size, evaluator(prepare), timeout_s).run(jobs))
    assert Counter(job for job, _ in ended) == Counter(jobs)
    return dict(ended)


def test_whatever_a_job_does_to_its_worker(started: list[Process]) -> None:
    """It is killed, leaves, dies in mid-sentence, or says what cannot be understood: its own job alone is lost."""
    faults = {
        DIE: "exit code -9",
        "__import__('os')._exit(3)": "exit code 3",
        f"__import__('os').write({CONNECTION}.fileno(), bytes([0, 0, 1, 0, 7])) and {DIE}": "exit code -9",
        f"{CONNECTION}.send_bytes(b'nonsense') or __import__('time').sleep(60)": "what it says cannot be read",
        f"{CONNECTION}.close() or __import__('time').sleep(60)": "what it says cannot be read",
    }
    sums = [f"{i} + 1" for i in range(20)]
    jobs = [*sums[:10], *faults, *sums[10:]]
    found = answers(2, jobs)
    assert {job: found[job] for job in faults} == {job: Lost("death", how) for job, how in faults.items()}
    assert {job: found[job] for job in sums} == {job: eval(job) for job in sums}
    # all are replaced but the last, where the other worker has done what was left before a new one could
    assert 1 + len(faults) <= len(started) <= 2 + len(faults)


def test_a_death_that_the_pipe_does_not_tell(started: list[Process]) -> None:
    """What a worker has forked keeps its end of the pipe."""
    begin = time.monotonic()
    forked = f"__import__('os').fork() and {DIE} or __import__('time').sleep(20) or __import__('os')._exit(0)"
    assert answers(1, [forked, "2"]) == {forked: Lost("death", "exit code -9"), "2": 2}
    assert time.monotonic() - begin < 15


def test_a_worker_that_stops_in_mid_sentence(started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be listened to for ever, and no other be heard."""
    monkeypatch.setattr(pool, "_PAUSE", 1.0)
    stop = f"__import__('os').kill(__import__('os').getpid(), {signal.SIGSTOP})"
    half = f"__import__('os').write({CONNECTION}.fileno(), bytes([0, 0, 1, 0, 7])) and {stop}"
    found = answers(2, ["1", half, "2", "3"])
    assert found == {"1": 1, half: Lost("death", "what it says cannot be read"), "2": 2, "3": 3}


def test_a_time_limit_is_of_the_job_not_of_the_start(started: list[Process]) -> None:
    slow_start = "import time\ntime.sleep(1.5)"
    late = "__import__('time').sleep(60)", f"__import__('os').kill(__import__('os').getpid(), {signal.SIGSTOP})"
    found = answers(2, ["1", *late, "2"], 1.0, slow_start)
    assert found == {"1": 1, **dict.fromkeys(late, Lost("timeout", "exit code -9")), "2": 2}


def test_a_clock_that_jumps_ends_nothing(started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    days = iter(range(0, 10**9, 86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(days)))
    jobs = [f"__import__('time').sleep(0.2) or {i}" for i in range(5)]
    assert set(answers(2, jobs, 30.0).values()) == set(range(5))


def test_workers_that_never_start(started: list[Process]) -> None:
    """Three attempts a worker, then every job is told why."""
    broken = "import os\nos._exit(7)"
    assert answers(2, ["1", "2", "3"], prepare=broken) == dict.fromkeys("123", Lost("start", "exit code 7"))
    assert len(started) == 6
    failing = "raise RuntimeError('no device')"
    assert answers(1, ["1"], prepare=failing) == {"1": Lost("start", "RuntimeError: no device")}
    assert len(started) == 9


def test_workers_killed_while_they_start_are_replaced(started: list[Process], tmp_path: Any) -> None:
    """All of the first two rounds: none is given up as long as it may still be of use."""
    rounds = f"import os\nfd = os.open({str(tmp_path / 'n')!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY)\n"
    rounds += f"os.write(fd, b'x')\nif os.fstat(fd).st_size <= 4: os.kill(os.getpid(), {signal.SIGKILL})"
    assert answers(2, ["1", "2", "3", "4"], prepare=rounds) == {"1": 1, "2": 2, "3": 3, "4": 4}
    assert len(started) == 6


def test_a_machine_without_room_for_processes(started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(process: Process) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Process, "start", start)
    assert answers(2, ["1"]) == {"1": Lost("start", "[Errno 11] Resource temporarily unavailable")}


def test_closing_ends_all_at_once(started: list[Process]) -> None:
    short, long = (f"__import__('time').sleep({seconds})" for seconds in (1, 600))
    running = Pool(6, evaluator()).run([short] * 6 + [long] * 9)
    assert [next(running) for _ in range(6)] == [(short, None)] * 6  # each is given a long one then
    begin = time.monotonic()
    running.close()
    assert len(started) == 6 and not any(process.lives() for process in started)
    assert time.monotonic() - begin < 5


def test_the_command_line_of_the_parent_stays_there(started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is written to, and the writer waits: one that died early would never have read a long one."""
    monkeypatch.setattr(sys, "argv", ["peftmark", "x" * 10_000_000])
    assert answers(1, ["len(__import__('sys').argv)"]) == {"len(__import__('sys').argv)": 1}
    assert len(sys.argv) == 2


class Told:
    """A worker that does as it is told: jobs are what becomes of it."""

    made: list[Told]

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.says: object = ""
        self.gone = False
        Told.made.append(self)

    def start(self) -> None: ...

    def send(self, job: str) -> None:
        if self.gone:
            raise BrokenPipeError
        self.jobs.append(job)
        self.says = job

    def receive(self) -> object:
        self.gone = self.says == "leave after"
        return self.says

    def lives(self) -> bool:
        return True

    def kill(self) -> None: ...

    def end(self) -> str:
        return "gone"


@pytest.fixture
def told() -> type[Told]:
    Told.made = []
    return Told


def test_jobs_are_handed_out_in_their_order(told: type[Told]) -> None:
    jobs = [str(i) for i in range(50)]
    ended = list(Pool(3, told, wait=lambda workers, seconds: {workers[0]}).run(jobs))
    assert ended == [(job, job) for job in jobs]
    assert [worker.jobs for worker in told.made] == [jobs, [], []]


def test_a_job_whose_worker_is_gone_before_it_began_goes_to_another(told: type[Told]) -> None:
    """It is not lost: nothing of it has been done."""
    ended = list(Pool(1, told, wait=lambda workers, seconds: set(workers)).run(["leave after", "a", "b"]))
    assert ended == [("leave after", "leave after"), ("a", "a"), ("b", "b")]
    assert [worker.jobs for worker in told.made] == [["leave after"], ["a", "b"]]


def test_workers_are_added_where_there_may_be_more(told: type[Told]) -> None:
    sizes = iter([1, 1, 1])
    pool = Pool(lambda: next(sizes, 3), told, wait=lambda workers, seconds: set(workers))
    assert len(list(pool.run(map(str, range(20))))) == 20
    assert len(told.made) == 3
    assert [len(worker.jobs) > 4 for worker in told.made] == [True] * 3


def test_a_job_may_be_handed_out_again(told: type[Told]) -> None:
    """After the others; a worker is started for it where none is left."""
    pool = Pool(1, told, wait=lambda workers, seconds: set(workers))
    ended = []
    for job, said in pool.run(["a", "b"]):
        ended.append(said)
        if ended.count(job) == 1:
            pool.again(job)
    assert ended == ["a", "b", "a", "b"]
    pool = Pool(1, evaluator())
    lost = []
    for job, said in pool.run([DIE]):
        assert said == Lost("death", "exit code -9")
        lost.append(job)
        if len(lost) < 3:
            pool.again(job)
    assert lost == [DIE] * 3


def test_a_thousand_simulated_workers_are_busy() -> None:
    """On runs of recorded durations; the time that the pool takes counts, at the end there is nothing left to do."""
    _, handing_out, _ = simulate(1000, 5000)
    assert handing_out > 0.95


def test_fewer_jobs_start_fewer_workers(started: list[Process]) -> None:
    assert answers(8, ["1", "2"]) == {"1": 1, "2": 2}
    assert len(started) <= 2
    assert list(Pool(8, evaluator()).run([])) == []

"""A pool of worker processes that nothing which happens to one of them can stop.

Every worker has a pipe of its own and shares nothing with the others: no queue, no lock, no thread. The driver waits
for all of them at once, and hands one its next job when its last is answered. Time is `time.monotonic`'s, and a job's
begins when a worker that is ready is handed it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple, Protocol

ATTEMPTS = 3
"""How often in a row a worker may end without having been of use, before it is not replaced any more."""

_GLANCE = 1.0
"""Seconds between looks at whether workers live: what a worker has forked may keep its pipe open after its death."""

_GRACE = 10.0
"""Seconds that the end of a killed process is waited for: one that waits for a disk ends late."""


_PAUSE = 5.0
"""Seconds that a worker may stop in the middle of a message, to be read or to be written."""


class Lost(NamedTuple):
    """What becomes of a job that has no answer.

    Attributes:
        why: the time limit; its worker's death; no worker that can be started.
        reason: of the last two, for people.
    """

    why: Literal["timeout", "death", "start"]
    reason: str


class Worker(Protocol):
    """It says that it is ready (an empty string), or why it cannot be; then it answers one job after another."""

    def start(self) -> None:
        """Raises OSError where there is no room for another one."""

    def send(self, job: Any) -> None:
        """Raises OSError where it is not there any more."""

    def receive(self) -> Any:
        """What it says. Raises any exception where it died, even in mid-sentence, or speaks nonsense."""

    def lives(self) -> bool: ...

    def kill(self) -> None:
        """End it at once."""

    def end(self) -> str:
        """See it end, and say how."""


class Process:
    """A worker that is a process on this machine.

    Args:
        prepare: called once there, with `options`. serve: called with every job; gives its answer. Both go there by
            their names.
    """

    def __init__(self, prepare: Callable[[Any], None], serve: Callable[[Any], Any], options: Any) -> None:
        # spawn: a forked child of a process that has used torch's thread pools can hang
        context = multiprocessing.get_context("spawn")
        self.pipe, self._its_end = context.Pipe()
        _limit_pauses(self.pipe)
        self._process = context.Process(target=_work, args=(self._its_end, prepare, serve, options), daemon=True)

    def start(self) -> None:
        try:
            with no_interrupts(), _few_arguments():
                self._process.start()
        finally:
            self._its_end.close()  # or its death would not end the pipe

    def send(self, job: Any) -> None:
        self.pipe.send(job)

    def receive(self) -> Any:
        return pickle.loads(self.pipe.recv_bytes())

    def lives(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        if self._process.pid is not None:
            self._process.kill()

    def end(self) -> str:
        self.pipe.close()
        if self._process.pid is None:
            return "it was not started"
        self._process.join(_GLANCE)  # the exit code comes a moment after the end of the pipe
        if (code := self._process.exitcode) is not None:
            return f"exit code {code}"
        self._process.kill()
        self._process.join(_GRACE)
        return "what it says cannot be read"


def _work(pipe: Connection, prepare: Callable[[Any], None], serve: Callable[[Any], Any], options: Any) -> None:
    """What a process does."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        try:
            prepare(options)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        pipe.send("")
        while True:
            pipe.send(serve(pipe.recv()))
    except (EOFError, ConnectionError):  # there is nobody to tell
        return


def _limit_pauses(pipe: Connection) -> None:
    """Longer waits, to read or to write, are OSErrors: the process at the other end may be stopped."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as end:
        seconds = struct.pack("ll", int(_PAUSE), 0)  # a timeval
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)


@contextmanager
def no_interrupts() -> Iterator[None]:
    """What is started meanwhile never gets Ctrl-C: the parent decides.

    A worker inherits the signal mask, so this holds while it is still importing torch, before it could ignore signals.
    """
    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, and unblocks SIGINT then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _few_arguments() -> Iterator[None]:
    """A process is told the command line of its parent, which waits until it has read all: for ever, if it dies."""
    before = sys.argv
    sys.argv = before[:1]
    try:
        yield
    finally:
        sys.argv = before


def heard(workers: Sequence[Any], seconds: float) -> set[Any]:
    """Those of some processes that say something or end: as soon as there is one, none after so many seconds."""
    by_pipe = {worker.pipe: worker for worker in workers}
    return {by_pipe[pipe] for pipe in connection.wait(list(by_pipe), seconds)}


class _Place:
    """Where a worker is, and another one when it has ended.

    Attributes:
        job: what it does, until `deadline` at the latest.
        failed: how many in a row were of no use.
    """

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.ready = False
        self.job: Any = None
        self.deadline = math.inf
        self.failed = 0


class Pool:
    """Workers that share out jobs.

    Args:
        size: how many workers at most; called where that changes with time.
        new: makes one, not started yet.
        timeout_s: of a job.
        wait, clock: others where time is simulated.
    """

    def __init__(
        self,
        size: int | Callable[[], int],
        new: Callable[[], Worker],
        timeout_s: float | None = None,
        wait: Callable[[Sequence[Any], float], set[Any]] = heard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size if callable(size) else lambda: size
        self._new, self._wait, self._clock = new, wait, clock
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._waiting = deque[Any]()
        self._places: list[_Place] = []
        self._given_up = 0
        self._reason = ""
        """Of the last worker that was of no use."""

    def run(self, jobs: Iterable[Any]) -> Generator[tuple[Any, Any], None, None]:
        """Hand out the jobs in their order, and yield each with its answer, or how it was `Lost`, as it ends.

        Closing the generator ends the workers.
        """
        self._waiting.extend(jobs)
        glance = self._clock() + _GLANCE
        try:
            while self._waiting or any(place.job is not None for place in self._places):
                self._fill()
                if not self._places:
                    yield self._waiting.popleft(), Lost("start", self._reason)
                    continue
                now = self._clock()
                until = min(glance, *(place.deadline for place in self._places))
                said = self._wait([place.worker for place in self._places], max(until - now, 0.0))
                looks, now = self._clock() >= glance, self._clock()
                glance = now + _GLANCE if looks else glance
                ended: list[tuple[Any, Any]] = []
                for place in self._places[:]:
                    if place.worker in said:
                        ended += self._hear(place)
                    elif place.deadline <= now:
                        ended += self._lose(place, "timeout")
                    elif looks and not _worker(place).lives():
                        ended += self._lose(place)
                for place in self._places[:]:
                    if self._waiting and place.ready and place.job is None:
                        self._give(place)
                yield from ended
        finally:
            self._close()

    def again(self, job: Any) -> None:
        """Hand out a job once more, after all others."""
        self._waiting.append(job)

    def _fill(self) -> None:
        """Start workers where there are fewer than there may be and than there are jobs."""
        while (
            self._waiting
            and len(self._places) < self._size() - self._given_up
            and len(self._places) < len(self._waiting) + sum(place.job is not None for place in self._places)
        ):
            self._places.append(_Place())
            self._start(self._places[-1])

    def _start(self, place: _Place) -> None:
        """Put a new worker there; give the place up where that is of no use."""
        place.worker, place.ready, place.job, place.deadline = None, False, None, math.inf
        while place.failed < ATTEMPTS:
            try:
                place.worker = self._new()
                place.worker.start()
            except OSError as error:
                place.failed += 1
                self._reason = str(error)
            else:
                return
        self._given_up += 1
        self._places.remove(place)

    def _hear(self, place: _Place) -> list[tuple[Any, Any]]:
        try:
            said = _worker(place).receive()
        except Exception:  # whatever it has sent
            return self._lose(place)
        if place.ready and place.job is not None:
            job, place.job, place.deadline, place.failed = place.job, None, math.inf, 0
            return [(job, said)]
        if place.ready or said != "":  # it cannot work, or speaks without being asked
            return self._lose(place, reason=str(said))
        place.ready = True
        return []

    def _give(self, place: _Place) -> None:
        job = self._waiting.popleft()
        try:
            _worker(place).send(job)
        except OSError:  # it ended before the job began
            self._waiting.appendleft(job)
            self._lose(place)
        else:
            place.job, place.deadline = job, self._clock() + self._timeout_s

    def _lose(
        self, place: _Place, why: Literal["timeout", "death"] = "death", reason: str = ""
    ) -> list[tuple[Any, Any]]:
        """End what is left of a worker and put another there; what of its job is to be told."""
        worker, job = _worker(place), place.job
        if why == "timeout" or reason:
            worker.kill()
        how = worker.end()
        if job is None:
            place.failed += 1
            self._reason = reason or how
        if self._waiting:
            self._start(place)
        else:
            self._places.remove(place)
        return [] if job is None else [(job, Lost(why, how))]

    def _close(self) -> None:
        with no_interrupts():
            workers = [place.worker for place in self._places if place.worker is not None]
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.end()
            self._places.clear()


def _worker(place: _Place) -> Worker:
    assert place.worker is not None
    return place.worker

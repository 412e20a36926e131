"""The local launcher: long-lived worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from queue import SimpleQueue
from typing import Literal

import torch
from pebble import ProcessExpired, ProcessPool

from ...errors import PeftmarkError
from ...results import CostSpec, ErrorInfo, Store
from ..measure.profile import failed, new_record
from ..plan.runs import Spec
from ..run.run import failed_record
from .outcome import Options, Outcome
from .worker import start, work


def launch(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
    """Carry out runs and profiles on `options.jobs` workers, yielding each as it ends, in no fixed order.

    A worker imports torch once and lives on; one that dies or exceeds the time limit is replaced, and its run gets a
    record that says so. Closing the iterator (Ctrl-C) stops the workers; every record written before stays.
    """
    # spawn: a forked child of a process that has used torch's thread pools can hang
    pool = ProcessPool(
        max_workers=min(options.jobs, len(specs)),
        initializer=start,
        initargs=(options,),
        context=multiprocessing.get_context("spawn"),
    )
    others = set(multiprocessing.active_children())
    try:
        with _no_interrupts():
            futures: dict[Future[Outcome], Spec] = {
                pool.schedule(work, args=(spec,), timeout=options.timeout_s): spec for spec in specs
            }
        ended = SimpleQueue[Future[Outcome]]()  # of 10,000 runs, `wait` would look at all whenever one ends
        for future in futures:
            future.add_done_callback(ended.put)
        while futures:
            future = ended.get()
            yield _outcome(future, futures.pop(future), options)
    finally:
        pool.stop()
        # join() takes the locks away before it ends the workers: one that is still starting would print a traceback
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        pool.join()


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """What is started meanwhile, the pool's threads and their workers, never gets Ctrl-C: the parent decides.

    A worker inherits the signal mask, so this holds while it is still importing torch, before it could ignore signals.
    """
    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, and unblocks SIGINT then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcome(future: Future[Outcome], spec: Spec, options: Options) -> Outcome:
    try:
        return future.result()
    except TimeoutError:
        message = f"longer than --timeout {options.timeout_s:g} s"
        return _failed(spec, options, "timeout", ErrorInfo(phase="run", type="TimeoutError", message=message))
    except ProcessExpired as error:
        message = (
            f"its worker ended by itself (exit code {error.exitcode}); -9 is often the system's out-of-memory killer"
        )
        return _failed(spec, options, "error", ErrorInfo(phase="run", type="WorkerDied", message=message))
    except PeftmarkError as error:  # a plug-in fails in the worker
        return Outcome(spec=spec, status="error", figure=None, seconds=0.0, message=str(error))
    except Exception as error:  # the record could not be written
        return Outcome(spec=spec, status="error", figure=None, seconds=0.0, message=f"{type(error).__name__}: {error}")


def _failed(spec: Spec, options: Options, status: Literal["timeout", "error"], error: ErrorInfo) -> Outcome:
    device, store = torch.device(options.device), Store(options.results)
    try:
        if isinstance(spec, CostSpec):
            cost = failed(new_record(spec, device), status, error)
            store.write_cost(cost, options.places.get(spec.id))
            return Outcome.of(cost, 0.0)
        record = failed_record(spec, device, status, error)
        store.write(record, options.places.get(spec.id))
        return Outcome.of(record, 0.0)
    except OSError as problem:  # a full disk must not end the other runs
        message = f"{error.message}; its record cannot be written ({problem.strerror})"
        return Outcome(spec=spec, status="error", figure=None, seconds=0.0, message=message)

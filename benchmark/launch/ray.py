"""The Ray launcher: workers wherever a Ray has room for them, whose records come back to the driver, which writes them.

A worker is an actor, not a task: a GPU that a process has initialized stays its own from run to run (Ray may give
another one to the next task of a reused process), its data and backbones stay with it, and the driver knows when a run
began. One worker does one run at a time, so that no more than these are ever in Ray.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from ...errors import PeftmarkError
from ...results import ErrorInfo, predictions_file, write_atomically
from ...results.files import CARDS
from ...results.store import PREDICTIONS
from ..environment import code
from ..plan.runs import Spec
from .failure import record_failure
from .outcome import Options, Outcome
from .pool import ATTEMPTS, Lost, Pool
from .ray_cluster import Cluster, Settings, connected, import_ray, read_settings
from .ray_node import Node, Sent, Setup

Cause = Literal["node", "memory", "worker"]

RETRIES: dict[Cause, int] = {"node": 3, "memory": 1, "worker": 1}
"""How often a run is tried again after the loss of its node, its worker's end for want of memory, or by itself."""


@dataclass
class _Job:
    """A run on its way.

    Attributes:
        cause: of its last failure.
        failures: how often it has failed, by cause.
    """

    spec: Spec
    cause: Cause = "worker"
    failures: dict[Cause, int] = field(default_factory=dict)


def launch(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
    """Carry out runs and profiles on a Ray, yielding each as it ends, in no fixed order; closing ends the workers.

    Raises:
        PeftmarkError: on settings that are wrong, a GPU's number, without Ray, or where it has no room for a worker.
    """
    settings = read_settings(options.launcher)
    if index := options.device.partition(":")[2]:
        raise PeftmarkError(
            f"--device {options.device}: which GPU a run has is Ray's to say; leave the number out "
            f"(`export CUDA_VISIBLE_DEVICES={index}` keeps a Ray that is started for the command to that one)"
        )
    gpus = settings.gpus if settings.gpus is not None else float(options.device.startswith("cuda"))
    settings = msgspec.structs.replace(settings, gpus=gpus)
    import_ray()
    return _launch(specs, options, settings)


def _launch(specs: list[Spec], options: Options, settings: Settings) -> Generator[Outcome, None, None]:
    jobs = min(settings.workers or options.jobs, len(specs))
    with connected(settings, jobs) as cluster:
        if not cluster.slots() and not (settings.address and settings.workers):
            asked = ", ".join(f"{name} {amount:g}" for name, amount in settings.resources().items())
            raise PeftmarkError(
                f"no node has room for a worker ({asked}): this Ray has {cluster.describe()}"
                + ("; where nodes are started as they are asked for, set launcher.workers" if settings.address else "")
            )
        crew = _Crew(cluster, settings, _setup(options, settings, cluster))
        fixed = settings.workers or (None if settings.address else jobs)
        # none at all for a while is no reason to give up: see `_Worker.lives`
        size = (lambda: max(cluster.slots(), 1)) if fixed is None else fixed
        pool = Pool(size, lambda: _Worker(crew), options.timeout_s, wait=crew.heard)
        for job, ended in pool.run(map(_Job, specs)):
            if not isinstance(ended, Lost):
                yield receive(ended, options)
            elif ended.why == "start":
                message = f"no worker can start ({ended.reason}; {ATTEMPTS} attempts)"
                yield Outcome(spec=job.spec, status="error", figure=None, seconds=0.0, message=message)
            elif ended.why == "timeout":
                message = f"longer than --timeout {options.timeout_s:g} s"
                yield _failed(job.spec, options, "timeout", "TimeoutError", message)
            elif may_be_tried_again(job):
                pool.again(job)
            else:
                yield _lost(job, options, ended.reason)


def _setup(options: Options, settings: Settings, cluster: Cluster) -> Setup:
    there = replace(
        options,
        device="cuda" if settings.gpus else "cpu",
        jobs=cluster.slots_a_node(),  # they share the node's memory
        places={},
        folder=None,
        launcher={},
    )
    plugins = {name: Path(name).read_bytes() for name in options.plugins}
    return Setup(there, plugins, cluster.package, code(), settings.data, cluster.scratch)


def may_be_tried_again(job: _Job) -> bool:
    """Whether a run whose worker was lost may have another; it is counted."""
    job.failures[job.cause] = job.failures.get(job.cause, 0) + 1
    return job.failures[job.cause] <= RETRIES[job.cause]


def receive(sent: Sent, options: Options) -> Outcome:
    """Write the files of a run into the results folder, its record last: where it is, the others are."""
    spec, place = sent.outcome.spec, options.place(sent.outcome.spec)
    own = Options.place(replace(options, places={}), spec).relative_to(options.results).as_posix()
    if own not in sent.files:  # it could not be written there
        return _failed(spec, options, "error", "NodeError", sent.outcome.message or "no record came back")
    predictions = predictions_file(place)
    try:
        predictions.unlink(missing_ok=True)  # of a record that is made anew
        for name, content in sent.files.items():
            if not name.startswith(f"{CARDS}/") and name != own:
                is_predictions = name == f"{PREDICTIONS}/{predictions.name}"
                write_atomically(predictions if is_predictions else options.results / name, content)
        write_atomically(place, sent.files[own])
    except OSError as error:
        message = f"it cannot be written: {type(error).__name__}: {error}"
        return Outcome(spec=spec, status="error", figure=None, seconds=0.0, message=message)
    try:
        for name, content in sent.files.items():
            if name.startswith(f"{CARDS}/"):
                write_atomically(options.results / name, content)
    except OSError as error:
        return replace(sent.outcome, message=f"recorded, but no card of it can be written: {error}")
    return sent.outcome


def _lost(job: _Job, options: Options, reason: str) -> Outcome:
    times = f"{job.failures[job.cause]} times"
    if job.cause == "memory":
        return _failed(job.spec, options, "oom", "OutOfMemoryError", f"Ray ended its worker {times} ({reason})")
    if job.cause == "node":
        return _failed(job.spec, options, "error", "NodeDied", f"its node was lost {times} ({reason})")
    message = f"its worker ended by itself {times} ({reason}); often that is the system's out-of-memory killer"
    return _failed(job.spec, options, "error", "WorkerDied", message)


def _failed(
    spec: Spec, options: Options, status: Literal["timeout", "oom", "error"], kind: str, message: str
) -> Outcome:
    # the driver's machine need not have the nodes' GPUs
    device = options.device if torch.cuda.is_available() else "cpu"
    error = ErrorInfo(phase="run", type=kind, message=message)
    return record_failure(spec, replace(options, device=device), status, error)


class _Crew:
    """What the workers of a launch have in common."""

    def __init__(self, cluster: Cluster, settings: Settings, setup: Setup) -> None:
        self.ray = import_ray()
        self.cluster, self.wait_s = cluster, settings.wait
        self.node = self.ray.remote(Node).options(**settings.actor())
        self.setup = self.ray.put(setup)
        self.ready = 0
        """How many can work. While some can, others may wait for room for ever."""

    def heard(self, workers: Sequence[_Worker], seconds: float) -> set[_Worker]:
        """Those that have answered, or are lost: as soon as there is one, none after so many seconds."""
        by_answer = {worker.answer: worker for worker in workers if worker.answer is not None}
        if not by_answer:  # all of them wait for a job
            return set()
        ready, waiting = self.ray.wait(list(by_answer), timeout=seconds)
        ready += self.ray.wait(waiting, num_returns=len(waiting), timeout=0)[0] if waiting else []
        return {by_answer[answer] for answer in ready}


class _Worker:
    """One of the pool's: an actor that may have to wait for room."""

    def __init__(self, crew: _Crew) -> None:
        self._crew = crew
        self._actor: Any = None
        self.answer: Any = None
        """What it will say."""
        self._job: _Job | None = None
        self._node = ""
        self._ready = False
        self._how = "it was stopped"

    def start(self) -> None:
        self._since = time.monotonic()
        self._actor = self._crew.node.remote()
        self.answer = self._actor.begin.remote(self._crew.setup)

    def send(self, job: _Job) -> None:
        self._job = job
        self.answer = self._actor.carry_out.remote(job.spec)

    def receive(self) -> Any:
        answer, self.answer = self.answer, None
        try:
            said = self._crew.ray.get(answer)
        except self._crew.ray.exceptions.RayError as error:
            self._how = reason_of(error, self._crew.ray.exceptions)
            if self._job is not None:
                self._job.cause = self._cause(error)
            raise
        if self._ready:
            return said
        self._node, problem = said
        if not problem:
            self._ready = True
            self._crew.ready += 1
        return problem

    def _cause(self, error: Exception) -> Cause:
        errors = self._crew.ray.exceptions
        alive = {node["NodeID"] for node in self._crew.cluster.nodes()}
        return cause_of(error, self._node in alive, errors)

    def lives(self) -> bool:
        if self._ready or self._crew.ready or time.monotonic() - self._since < self._crew.wait_s:
            return True
        self._how = f"no room for one in {self._crew.wait_s:g} s: this Ray has {self._crew.cluster.describe()}"
        return False

    def kill(self) -> None:
        with suppress(Exception):  # a cluster that is gone has no workers
            self._crew.ray.kill(self._actor, no_restart=True)

    def end(self) -> str:
        self.kill()
        self._crew.ready -= self._ready
        self._ready = False
        self._actor = self.answer = None
        return self._how


def reason_of(error: Exception, errors: Any) -> str:
    """What Ray says in several lines, in part of one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0] if isinstance(error, errors.OutOfMemoryError) else lines[-1]
    return line.partition(" Some common causes")[0].removesuffix(".")[:300]


def cause_of(error: Exception, node_lives: bool, errors: Any) -> Cause:
    """What a worker was lost for, by Ray's exception.

    Args:
        errors: Ray's module of them.
    """
    if isinstance(error, errors.OutOfMemoryError):
        return "memory"
    # one that cannot be reached any more: that its node is lost becomes known later
    if not node_lives or isinstance(
        error, (errors.NodeDiedError, errors.ActorUnavailableError, errors.ObjectLostError)
    ):
        return "node"
    return "worker"

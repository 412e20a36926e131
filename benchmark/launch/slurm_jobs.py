"""Arrays of slices as Slurm's jobs, by submitit, or as processes of this machine, by its local executor."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterable
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...errors import PeftmarkError
from ...results import LAUNCH
from .slices import Journal, Slice, margin

OOM = "OUT_OF_MEMORY"

ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", OOM, "PREEMPTED", "REVOKED", "TIMEOUT"}
)
"""Slurm's states of jobs that will not go on."""

GONE = "GONE"
"""Of a job that Slurm, or this machine, no longer knows."""

NEVER = frozenset(
    {"AccountNotAllowed", "BadConstraints", "InvalidAccount", "InvalidQOS"}
    | {"PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit"}
)
"""Slurm's reasons for jobs that wait and will not start, as they are; they stand in place of their state."""

_JOB, _PREFIX = "job.json", "peftmark-"
_REQUEUES = 10_000  # each has finished a run

Positive = Annotated[int, Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``--set launcher.NAME=VALUE``.

    Attributes:
        cluster: ``local`` starts processes on this machine in place of Slurm's jobs.
        tasks: how many array tasks the runs are dealt into.
        time: minutes that an array task may take; it is requeued where that is not enough.
        cpus: of an array task, and so its workers where there is no GPU.
        gpus: of an array task.
        memory: GB of an array task.
        parallel: how many array tasks may run at a time.
        setup: a shell command before each array task (``module load …``).
    """

    cluster: Literal["slurm", "local"] = "slurm"
    tasks: Positive | None = None
    time: Annotated[float, Meta(gt=0, le=60 * 24 * 365)] = 60.0
    cpus: Positive | None = None
    gpus: Annotated[int, Meta(ge=0, le=1)] | None = None
    memory: Annotated[float, Meta(gt=0)] | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    parallel: Positive = 256
    setup: str | list[str] = []


def read_settings(values: dict[str, Any]) -> Settings:
    """Raises PeftmarkError on what is no setting of this launcher, or has a value that it cannot have."""
    known = Settings.__struct_fields__
    for name, value in values.items():
        if name not in known:
            raise PeftmarkError(f"--set launcher.{name}: slurm has no such setting, but {', '.join(known)}")
        try:
            msgspec.convert({name: value}, Settings)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at ")[0] + (": slurm or local" if name == "cluster" else "")
            raise PeftmarkError(f"--set launcher.{name}={value}: {reason[0].lower()}{reason[1:]}") from error
    return msgspec.convert(values, Settings)


def check_cluster(settings: Settings) -> None:
    """Raises PeftmarkError where nothing can be submitted from here."""
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise PeftmarkError("--launcher slurm needs submitit: pip install 'peftmark[slurm]'") from error
    if settings.cluster == "local" and not Path("/proc").is_dir():
        raise PeftmarkError("--set launcher.cluster=local works on Linux alone: use --launcher local")
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if settings.cluster == "slurm" and missing:
        raise PeftmarkError(
            f"no {missing[0]} here: start this on a machine that submits to Slurm, or try it with "
            f"--set launcher.cluster=local"
        )


class _Job(msgspec.Struct, frozen=True):
    cluster: Literal["slurm", "local"]
    slices: list[list[str]]
    """Ids of each slice's specs."""


class Array:
    """Slices that were submitted together, under the name of the folder that is kept of them.

    The file ``job.json`` in it says what they are. It is written before they are submitted: whatever dies, no job is
    under way that nobody finds.
    """

    def __init__(self, folder: Path, job: _Job) -> None:
        self.folder = folder
        self.name = folder.name
        self.cluster = job.cluster
        self.slices = job.slices
        self.since = folder / _JOB
        """No run was started before it was written."""
        self.journals = [Journal(self._own(index) / "outcomes.jsonl") for index in range(len(job.slices))]

    @classmethod
    def submit(cls, slices: list[list[Any]], options: Any, settings: Settings) -> Array:
        """Submit slices of specs.

        Raises:
            PeftmarkError: with Slurm's reason for refusing them.
        """
        folder = options.results / LAUNCH / f"{_PREFIX}{uuid.uuid4().hex[:8]}"
        job = _Job(settings.cluster, [[spec.id for spec in each] for each in slices])
        array = cls(folder, job)
        for index in range(len(slices)):
            array._own(index).mkdir(parents=True)
        (folder / _JOB).write_bytes(msgspec.json.encode(job))
        seconds = settings.time * 60
        calls = [
            Slice(specs, options, journal.path, folder / _JOB, seconds)
            for specs, journal in zip(slices, array.journals, strict=True)
        ]
        try:
            with redirect_stderr(StringIO()):  # submitit prints what it also raises
                if settings.cluster == "slurm":
                    array._executor(folder, settings, options.jobs).submit_array(calls)
                else:
                    for index, call in enumerate(calls):
                        array._executor(array._own(index), settings, options.jobs).submit(call)
        except BaseException as error:
            cancel([array])
            array.forget()
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            # submitit raises what sbatch says
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1].removeprefix("sbatch: error: ")
            raise PeftmarkError(f"Slurm does not take the jobs: {reason}") from error
        return array

    def _executor(self, folder: Path, settings: Settings, jobs: int) -> Any:
        import submitit

        executor = submitit.AutoExecutor(folder, settings.cluster, **{f"{settings.cluster}_max_num_timeout": _REQUEUES})
        cpus = settings.cpus or jobs
        given = {f"slurm_{name}": getattr(settings, name) for name in ("partition", "account", "qos", "constraint")}
        executor.update_parameters(
            name=self.name,
            timeout_min=math.ceil(settings.time),
            cpus_per_task=cpus,
            slurm_array_parallelism=settings.parallel,
            slurm_signal_delay_s=max(int(margin(settings.time * 60) / 5), 1),
            slurm_srun_args=[f"--cpus-per-task={cpus}"],  # Slurm ≥ 22.05 does not hand it on
            **({"gpus_per_node": settings.gpus} if settings.gpus else {}),
            **({"mem_gb": settings.memory} if settings.memory else {}),
            **({f"{settings.cluster}_setup": _lines(settings.setup)} if settings.setup else {}),
            **{name: value for name, value in given.items() if value is not None},
        )
        return executor

    def _own(self, index: int) -> Path:
        """A slice's own folder."""
        return self.folder / f"{index:03d}"

    def log(self, index: int) -> str:
        """The last line that a slice wrote on stderr, or nothing; Slurm's own only where there is no other."""
        pattern = f"{index:03d}/*_log.err" if self.cluster == "local" else f"*_{index}_0_log.err"
        files = list(self.folder.glob(pattern)) or list(self.folder.glob("*_0_log.err"))  # one job alone is no array
        lines = [line.strip() for file in files for line in file.read_text(errors="replace").splitlines()]
        lines.sort(key=lambda line: bool(line) + (not line.startswith(("srun:", "slurmstepd"))))
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Nothing of it is under way any more; its logs stay."""
        (self.folder / _JOB).unlink(missing_ok=True)

    def forget(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # there are others
            self.folder.parent.rmdir()


def _lines(setup: str | list[str]) -> list[str]:
    return [setup] if isinstance(setup, str) else setup


def find_arrays(results: Path) -> list[Array]:
    """What was submitted for a results folder and not closed since."""
    found = []
    for path in sorted((results / LAUNCH).glob(f"{_PREFIX}*/{_JOB}")):
        try:
            found.append(Array(path.parent, msgspec.json.decode(path.read_bytes(), type=_Job)))
        except (msgspec.DecodeError, OSError):  # half-written: nothing was submitted yet
            continue
    return found


def states(arrays: Iterable[Array]) -> dict[tuple[str, int], str] | None:
    """Of every slice of the arrays, by the array's name and its index; None where it cannot be known now."""
    arrays = list(arrays)
    found = {(array.name, index): GONE for array in arrays for index in range(len(array.slices))}
    if any(array.cluster == "slurm" for array in arrays):
        names = ",".join(array.name for array in arrays if array.cluster == "slurm")
        told = _call("squeue", "--name", names, "--states=all", "--array", "--noheader", "--format=%j %K %T %r")
        if told is None:
            return None
        for line in told.splitlines():
            name, place, state, reason = line.split(None, 3)
            index = int(place) if place.isdigit() else 0  # one job alone is no array
            found[name, index] = reason if state == "PENDING" and reason in NEVER else state
    for array in arrays:
        if array.cluster == "local":
            for index in range(len(array.slices)):
                if _processes(array._own(index)):
                    found[array.name, index] = "RUNNING"
    return found


def _processes(folder: Path) -> list[int]:
    """Processes of submitit's local executor for a folder: the one that watches and the one that works."""
    found = []
    for entry in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        with suppress(OSError):
            words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")  # of a zombie: none
            if os.fsencode(folder) in words and any(word.startswith(b"submitit.") for word in words):
                found.append(int(entry))
    return found


def cancel(arrays: Iterable[Array]) -> None:
    """End them; finished records stay."""
    for array in arrays:
        if array.cluster == "local":
            for index in range(len(array.slices)):
                for process in _processes(array._own(index)):  # the one that watches is first: it starts none again
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
        else:
            _call("scancel", "--name", array.name)


def _call(*command: str) -> str | None:
    """What a command prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

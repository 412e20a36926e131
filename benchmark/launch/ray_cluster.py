"""A Ray of the launcher's own on this machine, or one that is there; its room for workers; and code that goes there."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...errors import PeftmarkError
from .pool import no_interrupts
from .ray_node import MARK
from .scratch import Scratch

_STORE_BYTES = 100 * 2**20
"""Of an own Ray's object store: what goes through it are files of single runs. Larger ones take the disk."""

_LOOK_S = 2.0
"""Between two looks at the nodes."""

_QUIET = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # raylets' lines on workers that died, on the driver's stdout
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the default of later versions; without it they warn
    "RAY_prestart_worker_first_driver": "0",  # workers that have not our code
}

_PATIENCE_S = 5.0
"""For an answer at an address. Ray itself tries for minutes."""

_HOST_PORT = re.compile(r"([\w.-]+|\[[\da-fA-F:]+\]):(\d{1,5})")

Positive = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``--set launcher.NAME=VALUE``.

    Attributes:
        address: of a Ray that is there (``auto``, ``HOST:6379``); without it one is started on this machine.
        cpus: of a worker.
        gpus: of a worker; a part of one lets several share it.
        memory: GB of a worker, which Ray counts, but does not enforce.
        workers: how many at most. By default, as many as there is room for, also when nodes join.
        data: where data sets lie on the nodes, if not where ``$PEFTMARK_DATA`` says there.
        scratch: a folder of the nodes for files on their way; by default, the system's for temporary files.
        wait: seconds that there may be no room for any worker.
    """

    address: str | None = None
    cpus: Positive = 1.0
    gpus: Annotated[float, Meta(ge=0)] | None = None
    memory: Positive | None = None
    workers: Annotated[int, Meta(ge=1)] | None = None
    data: str | None = None
    scratch: str | None = None
    wait: Positive = 600.0

    def resources(self) -> dict[str, float]:
        """What a worker takes of a node, by Ray's names."""
        asked = {"CPU": self.cpus, "GPU": self.gpus or 0.0, "memory": (self.memory or 0.0) * 1e9}
        return {name: amount for name, amount in asked.items() if amount}

    def actor(self) -> dict[str, Any]:
        """The same as options of an actor, which is not restarted: the driver knows what it was at."""
        memory = {"memory": int(self.memory * 1e9)} if self.memory else {}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus or 0.0, **memory, "max_restarts": 0, "max_task_retries": 0}


def read_settings(values: dict[str, Any]) -> Settings:
    """Raises PeftmarkError on what is no setting of this launcher, or has a value that it cannot have."""
    known = Settings.__struct_fields__
    for name, value in values.items():
        if name not in known:
            raise PeftmarkError(f"--set launcher.{name}: ray has no such setting, but {', '.join(known)}")
        try:
            msgspec.convert({name: value}, Settings)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at ")[0]
            raise PeftmarkError(f"--set launcher.{name}={value}: {reason[0].lower()}{reason[1:]}") from error
    settings = msgspec.convert(values, Settings)
    if settings.gpus and settings.gpus > 1:
        raise PeftmarkError(f"--set launcher.gpus={settings.gpus:g}: a run uses one GPU at most")
    if settings.address not in (None, "auto") and not _HOST_PORT.fullmatch(settings.address or ""):
        raise PeftmarkError(
            f"--set launcher.address={settings.address}: auto or HOST:PORT of a Ray; start this on one of its nodes"
        )
    return settings


def import_ray() -> ModuleType:
    """Raises PeftmarkError where it is not installed."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)  # some are read while it is imported
    try:
        import ray
    except ImportError as error:
        raise PeftmarkError("--launcher ray needs Ray: pip install 'peftmark[ray]'") from error
    return ray


class Cluster:
    """A Ray that this process is connected to.

    Attributes:
        package: the hash of the code that its workers run.
        scratch: where workers make folders of their own; None leaves that to their machine.
    """

    def __init__(self, ray: ModuleType, settings: Settings, package: str, scratch: str | None) -> None:
        self._ray, self._settings, self.package, self.scratch = ray, settings, package, scratch
        self._slots, self._next = 0, 0.0

    def slots(self) -> int:
        """How many workers there is room for, were nothing else running."""
        if (now := time.monotonic()) >= self._next:
            self._slots, self._next = sum(self._room(node) for node in self.nodes()), now + _LOOK_S
        return self._slots

    def slots_a_node(self) -> int:
        return max((self._room(node) for node in self.nodes()), default=1) or 1

    def _room(self, node: dict[str, Any]) -> int:
        has = node["Resources"]
        # fractions of a GPU do not go over from one to another
        return min(
            math.floor(has.get("GPU", 0.0)) * math.floor(1 / amount + 1e-9)
            if name == "GPU"
            else math.floor(has.get(name, 0.0) / amount + 1e-9)
            for name, amount in self._settings.resources().items()
        )

    def nodes(self) -> list[dict[str, Any]]:
        """Those that are alive."""
        return [node for node in self._ray.nodes() if node["Alive"]]

    def describe(self) -> str:
        nodes = self.nodes()
        cpus, gpus = (sum(node["Resources"].get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
        return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'s' * (len(nodes) != 1)}"


@contextmanager
def connected(settings: Settings, jobs: int) -> Iterator[Cluster]:
    """A Ray with room for `jobs` workers that ends with the context, or one that goes on.

    Raises:
        PeftmarkError: where there is none, or it cannot be used.
    """
    ray = import_ray()
    if ray.is_initialized():
        raise PeftmarkError("this process is connected to a Ray already: ray.shutdown() first")
    if settings.address:
        _check_port(settings.address)
    own = None if settings.address else Scratch(Path("/tmp"))  # paths of sockets must be short
    with tempfile.TemporaryDirectory() as folder:
        package = _stage(Path(folder) / "peftmark")
        where = (
            {"address": settings.address}
            if own is None
            else {
                "address": "local",
                "num_cpus": math.ceil(jobs * settings.cpus),
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": str(own.path),
            }
        )
        try:
            with _own_signals():
                ray.init(
                    **where,
                    runtime_env={"py_modules": [str(Path(folder) / "peftmark")]},
                    log_to_driver=False,
                    logging_level="ERROR",
                )
        except BaseException as error:
            with no_interrupts():
                ray.shutdown()
                if own is not None:
                    own.close()
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            what = (
                f"--set launcher.address={settings.address}: no Ray there" if settings.address else "Ray does not start"
            )
            raise PeftmarkError(f"{what} ({reason})") from error
    try:
        yield Cluster(ray, settings, package, settings.scratch or (str(own.path) if own is not None else None))
    finally:
        with no_interrupts():
            ray.shutdown()
            if own is not None:
                own.close()


def _check_port(address: str) -> None:
    if found := _HOST_PORT.fullmatch(address):
        try:
            socket.create_connection((found[1].strip("[]"), int(found[2])), _PATIENCE_S).close()
        except (OSError, OverflowError) as error:
            raise PeftmarkError(f"--set launcher.address={address}: no Ray there ({error})") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets a handler for SIGTERM; what the driver does then is the command's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stage(target: Path) -> str:
    """Copy this package, for Ray to send it to nodes, which may have none, or another version.

    Returns:
        The hash of what is sent.
    """
    root = Path(__file__).resolve().parents[2]

    def left_out(folder: str, names: list[str]) -> set[str]:
        at = Path(folder)
        hidden = {name for name in names if name.startswith(".") or name == "__pycache__"}
        if at != root:
            return hidden | ({"records"} & set(names) if at == root / "results" else set())
        # a checkout's root holds more than the package: tests, results, environments
        packages = {name for name in names if (at / name / "__init__.py").is_file()}
        return hidden | {name for name in names if name not in packages and not name.endswith(".py")}

    shutil.copytree(root, target, ignore=left_out)
    found = hashlib.sha256()
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(target).as_posix()} {path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    (target / MARK).write_text(found.hexdigest())
    return found.hexdigest()

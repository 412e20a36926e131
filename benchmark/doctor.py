"""What of all that peftmark can use is here, and what to do about the rest: packages, device, data sets, weights."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import msgspec
import torch

from ..backbones import find_backbone
from ..backbones.weights import SUFFIXES, local_weights, weights_folder
from ..errors import PeftmarkError
from ..registry import TASKS
from .environment import PACKAGES, find_device, hardware_class
from .plan.suite import SUITES

DATA = "PEFTMARK_DATA"
"""Environment variable: the folder with the data sets."""

_EXTRA = re.compile(r"([\w.-]+)[^;]*;.*extra == ['\"]([\w-]+)['\"]")
_NOT_FOR_USERS = frozenset({"all", "test", "lint"})


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """Optional dependencies; `command` installs them where some are missing."""

    name: str
    installed: dict[str, str]
    missing: list[str]
    command: str | None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    python: str
    device: str
    hardware_class: str
    cores: int
    threads: int
    """That torch would use outside a run; a protocol on a CPU fixes one a worker."""
    memory_bytes: int | None
    """Of the GPU."""


class TaskState(msgspec.Struct, frozen=True, kw_only=True):
    """Ready where there are no problems."""

    name: str
    problems: list[str]


class WeightsState(msgspec.Struct, frozen=True, kw_only=True):
    """Of a backbone that a suite runs on; `remedy` where its weights are not on this machine's disk."""

    backbone: str
    suites: list[str]
    file: str | None
    remedy: str | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``peftmark doctor`` says."""

    packages: dict[str, str | None]
    extras: list[Extra]
    machine: Machine
    data_folder: str | None
    data_problem: str | None
    tasks: list[TaskState]
    weights_folder: str
    weights_files: list[str]
    weights: list[WeightsState]


def examine() -> Report:
    """Look at this machine. Nothing is downloaded, built or decoded."""
    folder = os.environ.get(DATA)
    return Report(
        packages={name: _version(name) for name in PACKAGES},
        extras=_extras(),
        machine=_machine(),
        data_folder=folder or None,
        data_problem=_data_problem(folder),
        tasks=[TaskState(name=name, problems=_check(name)) for name in _task_names()],
        weights_folder=str(weights_folder()),
        weights_files=_weights_files(weights_folder()),
        weights=_weights(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extras() -> list[Extra]:
    try:
        lines = requires("peftmark") or []
    except PackageNotFoundError:  # run from a checkout that is not installed
        lines = []
    wanted: dict[str, list[str]] = {}
    for line in lines:
        match = _EXTRA.match(line)
        if match and match[2] not in _NOT_FOR_USERS:
            wanted.setdefault(match[2], []).append(match[1])
    extras = []
    for name, packages in sorted(wanted.items()):
        versions = {package: _version(package) for package in packages}
        missing = [package for package, found in versions.items() if found is None]
        extras.append(
            Extra(
                name=name,
                installed={package: found for package, found in versions.items() if found is not None},
                missing=missing,
                command=f"pip install 'peftmark[{name}]'" if missing else None,
            )
        )
    return extras


def _machine() -> Machine:
    device = find_device(None)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return Machine(
        python=platform.python_version(),
        device=str(device),
        hardware_class=hardware_class(device),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=memory,
    )


def _data_problem(folder: str | None) -> str | None:
    if not folder:
        return f"{DATA} is not set: `export {DATA}=/path` to the folder that holds the data sets"
    if not Path(folder).expanduser().is_dir():
        return f"{DATA}={folder}: there is no such folder; set it to the one that holds the data sets"
    return None


def _task_names() -> list[str]:
    """Registered ones, and those that a namespace says are below it; a path of the user's own cannot be known."""
    names = [name for name in TASKS.names() if not name.endswith("/*")]
    below = [member for name in TASKS.names() if name.endswith("/*") for member in TASKS.members(name)]
    return sorted({*names, *below})


def _check(name: str) -> list[str]:
    try:
        return [" ".join(problem.split()) for problem in TASKS[name](name).check()]
    except PeftmarkError as error:
        return [" ".join(str(error).split())]
    except Exception as error:  # one task's fault must not keep the others' state from being said
        return [f"its check fails ({type(error).__name__}: {' '.join(str(error).split())})"]


def _weights_files(folder: Path) -> list[str]:
    """All weights in a folder, by their path in it."""
    suffixes = (*SUFFIXES, ".npz")
    files = (path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file())
    return sorted(str(path.relative_to(folder)) for path in files)


def _weights() -> list[WeightsState]:
    wanted: dict[str, list[str]] = {}
    for suite in SUITES:
        for block in SUITES[suite].runs:
            wanted.setdefault(block.backbone, []).append(suite)
    return [_weights_state(name, sorted(set(suites))) for name, suites in sorted(wanted.items())]


def _weights_state(name: str, suites: list[str]) -> WeightsState:
    file: Path | None = None
    remedy = None
    try:
        backbone = find_backbone(name)
        file = backbone.checkpoint or local_weights(backbone.name)
        if file is None and backbone.name.startswith("embedded/"):
            file = backbone.weights_file()  # a part of the package
        if file is None:
            target = weights_folder() / f"{backbone.name}.safetensors"
            remedy = f"put them at {target} (or .pth); else they are downloaded from their hub on first use"
    except PeftmarkError as error:
        remedy = " ".join(str(error).split())
    return WeightsState(backbone=name, suites=suites, file=str(file) if file else None, remedy=remedy)

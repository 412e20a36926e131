"""What a run ran on: recorded beside the spec, never part of it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import PeftmarkError
from ..results import Env

PACKAGES = ("peftmark", "torch", "torchvision", "timm", "open_clip_torch", "numpy", "scikit-learn", "safetensors")


def find_device(name: str | None) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:1``, …; None takes the GPU where there is one.

    Raises:
        PeftmarkError: where there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise PeftmarkError(f"no device {name!r} here ({reason}): leave --device out, or use --device cpu") from error
    return device


def hardware_class(device: torch.device) -> str:
    """What cost figures may be compared within, e.g. ``cuda:NVIDIA H100`` or ``cpu:AMD EPYC 9B14``."""
    if device.type == "cuda":
        return f"cuda:{torch.cuda.get_device_name(device)}"
    return f"cpu:{_cpu_name()}"


@lru_cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache
def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Code(NamedTuple):
    """What is run: a commit, whether it was changed, the package's version; None where it is not known."""

    git_sha: str | None
    dirty: bool | None
    version: str | None


_shipped: Code | None = None


def code() -> Code:
    return _shipped or Code(*_git(), _packages().get("peftmark"))


def use_code(shipped: Code) -> None:
    """Say what the code is that was copied to this machine for this process."""
    global _shipped
    _shipped = shipped


@lru_cache
def _git() -> tuple[str | None, bool | None]:
    """The commit of the checkout that peftmark runs from and whether its code has changes; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None, None
        return git("rev-parse", "HEAD"), bool(
            git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results/records")
        )
    except (OSError, subprocess.SubprocessError):
        return None, None


def environment(device: torch.device, data_sha256: str | None = None, data_warnings: Sequence[str] = ()) -> Env:
    run = code()
    others = {name: found for name, found in _packages().items() if name != "peftmark"}
    return Env(
        hardware_class=hardware_class(device),
        device=str(device),
        torch=str(torch.__version__),
        python=platform.python_version(),
        packages={**({"peftmark": run.version} if run.version else {}), **others},
        git_sha=run.git_sha,
        dirty=run.dirty,
        threads=torch.get_num_threads(),
        data_sha256=data_sha256,
        data_warnings=list(data_warnings),
    )

"""The launchers by name: where runs are carried out."""

from __future__ import annotations

from collections.abc import Generator
from importlib import import_module
from typing import Protocol, cast

from ...errors import PeftmarkError
from ..plan.runs import Spec
from .outcome import Options, Outcome


class Launch(Protocol):
    """Carry out runs and profiles, yielding each as it ends, in no fixed order; closing the iterator stops them.

    Every spec gives exactly one outcome, whatever happens to it. Which specs, records that are there already, progress
    and retries are the driver's.
    """

    def __call__(self, specs: list[Spec], options: Options) -> Generator[Outcome, None, None]: ...


LAUNCHERS = ("local", "ray", "slurm")
"""Each is a module of this package with a function ``launch``."""


def find_launcher(name: str) -> Launch:
    """A launcher by name.

    Raises:
        PeftmarkError: on an unknown one.
    """
    if name not in LAUNCHERS:
        raise PeftmarkError(f"unknown launcher {name!r}: there is {', '.join(LAUNCHERS)}")
    return cast(Launch, import_module(f".{name}", __package__).launch)

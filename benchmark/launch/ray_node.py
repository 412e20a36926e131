"""What a worker of the Ray launcher does, on whatever node: runs, whose files it sends back."""

from __future__ import annotations

import atexit
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from ...results import CostSpec, write_atomically
from ...results.files import CARDS
from ..environment import Code, hardware_class, use_code
from ..plan.runs import Spec
from . import worker
from .outcome import Options, Outcome
from .scratch import Scratch

MARK = "shipped"
"""A file of the package as it is sent to nodes: the hash of its sources."""


@dataclass(frozen=True)
class Setup:
    """What a worker is told to start.

    Attributes:
        options: the driver's; its paths of weights are looked for here too.
        plugins: files of the driver's, with what is in them.
        package: the hash of the sources that are to be run.
        code: what records say of them.
        data: where data sets lie here, if not where this machine says.
        scratch: where files lie until they are sent.
    """

    options: Options
    plugins: dict[str, bytes]
    package: str
    code: Code
    data: str | None
    scratch: str | None


class Sent(NamedTuple):
    """A run that ended, and its files by their names in a results folder."""

    outcome: Outcome
    files: dict[str, bytes]


class Node:
    """A worker; Ray makes an actor of it."""

    def begin(self, setup: Setup) -> tuple[str, str]:
        """
        Returns:
            The node's id, and why nothing can be run here, or nothing.
        """
        import ray

        node = str(ray.get_runtime_context().get_node_id())
        mark = Path(__file__).parents[2] / MARK
        if not mark.is_file() or mark.read_text() != setup.package:
            return node, f"not the driver's code but {mark.parent} is imported on {os.uname().nodename}"
        try:
            self._scratch = Scratch(Path(setup.scratch) if setup.scratch else None)
        except OSError as error:
            return node, f"{os.uname().nodename} has no room for scratch files ({error})"
        atexit.register(self._scratch.close)
        if setup.data:
            os.environ["PEFTMARK_DATA"] = setup.data
        use_code(setup.code)
        self._root = self._scratch.path / "results"
        self._sent = set[str]()
        plugins = tuple(str(self._plugin(Path(name), content)) for name, content in setup.plugins.items())
        self._options = replace(setup.options, results=self._root, plugins=plugins)
        worker.start(self._options)
        return node, ""

    def carry_out(self, spec: Spec) -> Sent:
        """A run or a profile."""
        if isinstance(spec, CostSpec) and spec.hardware_class is not None:
            here = hardware_class(torch.device(self._options.device))
            if here != spec.hardware_class:
                message = f"to be measured on {spec.hardware_class}, but {os.uname().nodename} has {here}"
                return Sent(Outcome(spec=spec, status="error", figure=None, seconds=0.0, message=message), {})
        outcome = worker.carry_out((spec, self._options.place(spec)))
        return Sent(outcome, self._collect())

    def _collect(self) -> dict[str, bytes]:
        """What lies in the folder and was not sent yet. Cards stay, and so are written once; the rest is deleted."""
        files = {}
        for path in sorted(path for path in self._root.rglob("*") if path.is_file()):
            name = path.relative_to(self._root).as_posix()
            is_card = name.startswith(f"{CARDS}/")
            if not is_card or name not in self._sent:
                files[name] = path.read_bytes()
            if is_card:
                self._sent.add(name)
            else:
                path.unlink()
        return files

    def _plugin(self, file: Path, content: bytes) -> Path:
        """The file itself where this machine has it, else a copy."""
        try:
            if file.read_bytes() == content:
                return file
        except OSError:
            pass
        copy = self._scratch.path / "plugins" / hashlib.sha256(content).hexdigest()[:16] / file.name
        write_atomically(copy, content)
        return copy

"""What launchers report of a run, or a profile, that ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...methods.files import known_files
from ...results import CostRecord, CostSpec, RunRecord
from ...results.files import Identity
from ...results.store import COSTS
from ...tasks import Fingerprint
from ..plan.runs import Spec

POSTPONED = "postponed"
"""Status of a run that was not started, see `Options.until`."""


@dataclass(frozen=True)
class Outcome:
    """A finished run or profile, small enough to cross processes.

    Attributes:
        figure: the headline, for people; None where there is none.
    """

    spec: Spec
    status: str
    figure: str | None
    seconds: float
    message: str | None

    @classmethod
    def of(cls, record: RunRecord | CostRecord, seconds: float) -> Outcome:
        return cls(
            spec=record.spec,
            status=record.status,
            figure=_headline(record),
            seconds=seconds,
            message=record.error.message if record.error else None,
        )


def _headline(record: RunRecord | CostRecord) -> str | None:
    if isinstance(record, CostRecord):
        return f"{record.memory.estimated.train_peak_allocated_bytes / 2**30:.2f} GiB" if record.memory else None
    if record.trial:
        return f"{_figure(record.trial.validation, record.trial.unit)} on validation"
    return _figure(record.quality.test, record.quality.unit) if record.quality else None


def _figure(value: float, unit: str) -> str:
    return f"{value:5.1f}" if unit == "percent" else f"{value:.4g} {unit}"


@dataclass(frozen=True)
class Options:
    """How to run, apart from what to run."""

    results: Path
    device: str
    jobs: int
    timeout_s: float | None
    save_adapters: bool
    predictions: bool
    """Whether what a run predicts of every test example is kept beside its record."""
    plugins: tuple[str, ...]
    checkpoints: dict[str, Path] = field(default_factory=dict)
    """Local weights files by sha256."""
    cache: bool = True
    """Whether a worker keeps what untouched prefixes give (see `PrefixCache`)."""
    places: dict[str, Path] = field(default_factory=dict)
    """Where records lie that are made anew, by id; others are written into the results folder itself."""
    until: Path | None = None
    """A file that says until when, by `time.monotonic`, runs are started. What comes later is `POSTPONED`."""
    folder: Identity | None = None
    """Of the results folder, as it was when the command began: workers write into no other one of its name."""
    launcher: dict[str, Any] = field(default_factory=dict)
    """The launcher's own settings (``--set launcher.NAME=VALUE``), which it checks."""
    data: dict[tuple[str, int], Fingerprint] = field(default_factory=dict)
    """What the data of a task and a draw were when the runs were launched, where they are read from files."""

    method_files: dict[str, Path] = field(default_factory=known_files)
    """Where files lie that methods read, by sha256."""

    def place(self, spec: Spec) -> Path:
        """Where the record of a run or a profile goes."""
        folder = self.results / COSTS if isinstance(spec, CostSpec) else self.results
        return self.places.get(spec.id) or folder / f"{spec.id}.json"

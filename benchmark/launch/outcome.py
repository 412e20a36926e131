"""What launchers report of a run that ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...results import RunRecord, RunSpec


@dataclass(frozen=True)
class Outcome:
    """A finished run, small enough to cross processes."""

    spec: RunSpec
    status: str
    test: float | None
    seconds: float
    message: str | None

    @classmethod
    def of(cls, record: RunRecord) -> Outcome:
        time = record.time_s
        return cls(
            spec=record.spec,
            status=record.status,
            test=record.quality.test if record.quality else None,
            seconds=time.setup + time.data + time.train + time.evaluation,
            message=record.error.message if record.error else None,
        )


@dataclass(frozen=True)
class Options:
    """How to run, apart from what to run."""

    results: Path
    device: str
    jobs: int
    timeout_s: float | None
    save_adapters: bool
    plugins: tuple[str, ...]
    checkpoints: dict[str, Path] = field(default_factory=dict)
    """Local weights files by sha256."""
    cache: bool = True
    """Whether a worker keeps what frozen prefixes give (see `PrefixCache`)."""

"""What stands beside a row's figures: what it trains, stores and costs. A new quantity is one more `Measure`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...results import CostRecord
from ..formatting import count, memory, ratio
from ..subjects import slug
from .table import Row


@dataclass(frozen=True)
class Measure:
    """A quantity of a row of which less is better; every one is a column, a budget and an axis of the site."""

    key: str
    label: str
    title: str
    write: Callable[[float], str]
    of: Callable[[Row], float | None]
    """None where it is not known."""
    href: Callable[[Row], str | None] = lambda row: None
    """What is behind it, from the site's root."""
    why: Callable[[Row], str] = lambda row: ""
    """Why it is not known."""
    axis: str = ""
    """What an axis is called, where the label does not say enough."""


def _cost_page(row: Row) -> str | None:
    return f"efficiency/{slug(row.cost.record.spec.backbone)}.html#{row.cost.key}" if row.cost else None


def _cost_reason(row: Row) -> str:
    return row.cost.reason if row.cost else ""


MEASURES = (
    Measure(
        "parameters",
        "Parameters",
        "trainable parameters without the head",
        count,
        lambda row: row.parameters.median if row.parameters else None,
        axis="trainable parameters without head",
    ),
    Measure(
        "stored",
        "Stored",
        "bytes of what is stored of a trained model beside its backbone, head included; the median over the runs",
        memory,
        lambda row: (
            statistics.median_low(stored)
            if (stored := [run.storage.adapter_bytes for run in row.runs if run.storage])
            else None
        ),
        axis="stored bytes",
    ),
    Measure(
        "memory",
        "Memory",
        "training memory at its peak, estimated, relative to full fine-tuning",
        ratio,
        lambda row: row.cost.memory_ratio if row.cost else None,
        _cost_page,
        _cost_reason,
        "training memory ÷ full fine-tuning's",
    ),
    Measure(
        "flops",
        "FLOPs",
        "operations of a training step relative to full fine-tuning",
        ratio,
        lambda row: row.cost.flops_ratio if row.cost else None,
        _cost_page,
        _cost_reason,
        "FLOPs of a training step ÷ full fine-tuning's",
    ),
)
"""Those that depend on no hardware."""


def measures_of(rows: Iterable[Row]) -> list[Measure]:
    """The measures of which any row has a value; times one for each class of hardware: they are never compared."""
    rows = list(rows)
    classes = sorted({hardware for row in rows for hardware in timed_on(row)})
    measures = [*MEASURES, *(step_time(hardware, alone=len(classes) == 1) for hardware in classes)]
    return [measure for measure in measures if any(measure.of(row) is not None for row in rows)]


def timed_on(row: Row) -> dict[str, CostRecord]:
    """The row's timed cost records by class of hardware."""
    records = row.cost.measured if row.cost else ()
    return {str(record.spec.hardware_class): record for record in records if record.speed is not None}


def step_time(hardware: str, alone: bool) -> Measure:
    def of(row: Row) -> float | None:
        record = timed_on(row).get(hardware)
        return record.speed.train_step_relative_to_full if record and record.speed else None

    label = "Step time" if alone else f"Step time, {hardware}"
    return Measure(
        f"step:{hardware}",
        label,
        f"time of a training step relative to full fine-tuning, measured on {hardware}",
        ratio,
        of,
        _cost_page,
        _cost_reason,
        f"time of a training step ÷ full fine-tuning's, {hardware}",
    )

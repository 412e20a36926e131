"""Costs as data: a sheet for each backbone and input, with its rows. How records become these is in `build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...results import CostRecord, CostSpec, Memory, canonical_json
from ..configurations import grouped
from ..subjects import Subject, families_in_order

PARTS = ("weights", "gradients", "optimizer", "activations", "inputs")
"""Of the memory at a training step's peak, in the order of `results.MemoryBreakdown`."""


@dataclass(frozen=True, order=True)
class Shape:
    """The input that a sheet's rows share."""

    batch_size: int
    input_shape: tuple[int, ...]
    num_classes: int

    def __str__(self) -> str:
        return f"batch {self.batch_size}, {'×'.join(map(str, self.input_shape))}, {self.num_classes} classes"


@dataclass(frozen=True, order=True)
class MemorySettings:
    """What saves memory whatever the method: a `CostSpec`'s settings of that kind."""

    frozen_dtype: str = "float32"
    gradient_checkpointing: bool = False
    precision: str = "float32"
    optimizer: str = "adamw"

    @classmethod
    def of(cls, spec: CostSpec) -> MemorySettings:
        return cls(spec.frozen_dtype, spec.gradient_checkpointing, spec.precision, spec.optimizer or "adamw")

    @property
    def plain(self) -> bool:
        return self == MemorySettings()

    @property
    def of_full(self) -> tuple[str, bool, str]:
        """What full fine-tuning has in common with a row that is compared with it: it holds nothing frozen."""
        return self.precision, self.gradient_checkpointing, self.optimizer

    @property
    def order(self) -> tuple[int, MemorySettings]:
        """The fewer departures from the plain one, the earlier."""
        return (len(self.badges), self)

    @property
    def badges(self) -> tuple[str, ...]:
        badges = [self.precision] if self.precision != "float32" else []
        badges += [f"frozen {self.frozen_dtype}"] if self.frozen_dtype != "float32" else []
        badges += ["checkpointing"] if self.gradient_checkpointing else []
        badges += [self.optimizer] if self.optimizer != "adamw" else []
        return tuple(badges)


@dataclass(eq=False)  # full fine-tuning is compared with itself
class CostRow:
    """One configuration of one method with some memory settings, and its records on whatever hardware."""

    key: str
    """Unique in the site."""
    method: Subject
    version: int
    config: dict[str, Any]
    differences: tuple[str, ...]
    """How the configuration differs from the method's default."""
    superseded: bool
    """Whether the sheet holds a newer version of the method."""
    badges: tuple[str, ...]
    settings: MemorySettings
    record: CostRecord
    """That of the counts and the estimate: without hardware where there is one, any other that succeeded else."""
    measured: tuple[CostRecord, ...]
    """Those with a hardware class."""
    full: CostRow | None = field(default=None, repr=False)
    """Full fine-tuning to compare with."""
    plain: CostRow | None = None
    """The same configuration with the plain settings; None of a row that is plain itself."""

    @property
    def label(self) -> str:
        return " ".join((self.method.name, *self.differences, *self.badges))

    @property
    def memory(self) -> Memory | None:
        return self.record.memory.estimated if self.record.memory else None

    @property
    def peak(self) -> int | None:
        """Of a training step, estimated."""
        return self.memory.train_peak_allocated_bytes if self.memory else None

    @property
    def parts(self) -> list[tuple[str, int]]:
        """The peak's bytes by what they are."""
        breakdown = self.memory.breakdown_bytes if self.memory else None
        return [(part, getattr(breakdown, part)) for part in PARTS] if breakdown else []

    @property
    def memory_ratio(self) -> float | None:
        """Of the training peak to that of full fine-tuning."""
        return quotient(self.peak, self.full.peak if self.full else None)

    @property
    def saving_ratio(self) -> float | None:
        """Of the training peak to that of the plain row."""
        return quotient(self.peak, self.plain.peak if self.plain else None)

    @property
    def train_flops(self) -> int | None:
        return self.record.compute.train_step_flops if self.record.compute else None

    @property
    def flops_ratio(self) -> float | None:
        """Of a training step's operations to those of full fine-tuning."""
        return quotient(self.train_flops, self.full.train_flops if self.full else None)

    @property
    def reason(self) -> str:
        return reason(self.record)

    @property
    def searched(self) -> str:
        """What a filter finds the row by."""
        words = [self.label, self.method.family, self.record.status, *(["plain"] if self.settings.plain else [])]
        return " ".join(words).lower()

    @property
    def identity(self) -> tuple[str, int, bytes]:
        """What joins it to runs."""
        return (self.method.name, self.version, canonical_json(self.config))


@dataclass(frozen=True)
class MeasuredRow:
    """A row's record on one class of hardware."""

    row: CostRow
    record: CostRecord
    full: CostRecord | None
    """Full fine-tuning to compare with, on the same hardware."""

    @property
    def memory(self) -> Memory | None:
        return self.record.memory.measured if self.record.memory else None

    @property
    def memory_ratio(self) -> float | None:
        """Of the measured training peak to that of full fine-tuning."""
        full = self.full.memory.measured if self.full and self.full.memory else None
        return quotient(
            self.memory.train_peak_allocated_bytes if self.memory else None,
            full.train_peak_allocated_bytes if full else None,
        )

    @property
    def reason(self) -> str:
        return reason(self.record)

    @property
    def searched(self) -> str:
        return f"{self.row.searched} {self.record.status}"


@dataclass(frozen=True)
class HardwareTable:
    key: str
    hardware: str
    rows: list[MeasuredRow]

    @property
    def has_memory(self) -> bool:
        return any(row.memory for row in self.rows)

    @property
    def has_speed(self) -> bool:
        return any(row.record.speed for row in self.rows)

    @property
    def failed(self) -> list[MeasuredRow]:
        return [row for row in self.rows if row.record.status != "ok"]


@dataclass
class CostSheet:
    """All costs on one backbone for one input."""

    key: str
    backbone: Subject
    size: int | None
    """The bare backbone's parameters."""
    shape: Shape
    rows: list[CostRow]
    hardware: list[HardwareTable]

    @cached_property
    def highest(self) -> int:
        """The largest peak, which the bars are drawn to."""
        return max((row.peak for row in self.rows if row.peak), default=1)

    @property
    def has_memory_settings(self) -> bool:
        """Whether there is any row but plain ones."""
        return any(not row.settings.plain for row in self.rows)

    @property
    def failed(self) -> list[CostRow]:
        """Those without figures; what was estimated before a measurement failed is a figure."""
        return [row for row in self.rows if row.peak is None]

    @property
    def families(self) -> list[tuple[str, str]]:
        return families_in_order((row.method.family, row.method.colour) for row in self.rows)

    @cached_property
    def by_method(self) -> Mapping[tuple[str, int, bytes], CostRow]:
        """The plain rows, by what joins them to runs."""
        return {row.identity: row for row in self.rows if row.settings.plain}


@dataclass(frozen=True)
class Overview:
    """The main sheets side by side: a row for each plain configuration, a cell for each backbone."""

    sheets: list[CostSheet]
    rows: list[tuple[CostRow, list[CostRow | None]]]
    """One of the configuration's rows, to name it, and its row in each sheet."""

    @property
    def families(self) -> list[tuple[str, str]]:
        return families_in_order((row.method.family, row.method.colour) for row, _ in self.rows)


@dataclass(frozen=True)
class Efficiency:
    sheets: list[CostSheet]

    @cached_property
    def by_backbone(self) -> Mapping[str, list[CostSheet]]:
        return grouped(self.sheets, lambda sheet: sheet.backbone.name)

    def main_sheet(self, backbone: str) -> CostSheet | None:
        """The one of several inputs that has most plain rows; of equals the smallest input."""
        sheets = self.by_backbone.get(backbone, [])
        return min(sheets, key=lambda sheet: (-len(sheet.by_method), sheet.shape), default=None)

    def of_method(self, name: str) -> list[tuple[CostSheet, CostRow]]:
        return [(sheet, row) for sheet in self.sheets for row in sheet.rows if row.method.name == name]

    def overview(self, sheets: list[CostSheet]) -> Overview:
        """Main sheets side by side, in the order given."""
        known: dict[tuple[str, int, bytes], CostRow] = {}
        for sheet in sheets:
            for identity, row in sheet.by_method.items():
                if not row.superseded:
                    known.setdefault(identity, row)
        rows = [(row, [sheet.by_method.get(identity) for sheet in sheets]) for identity, row in known.items()]
        return Overview(sheets, sorted(rows, key=lambda item: (_mean_ratio(item[1]), item[0].label)))


def quotient(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def reason(record: CostRecord) -> str:
    """Why there is no number, the empty string where there is one."""
    if record.error is None:
        return "" if record.status == "ok" else record.status
    return f"{record.status} in {record.error.phase}: {record.error.message}"


def _mean_ratio(rows: Sequence[CostRow | None]) -> float:
    ratios = [ratio for row in rows if row and (ratio := row.memory_ratio) is not None]
    return sum(ratios) / len(ratios) if ratios else float("inf")

"""Cost records to sheets: one per backbone and input, a row per method configuration and memory settings.

The rules of comparison live here:

- Counts, operations and estimated memory depend on the spec alone and are compared within a sheet.
- Full fine-tuning in a ratio is that of the same sheet under the same precision and gradient checkpointing. It freezes
  nothing, so that the frozen matrices' type makes no difference to it.
- A row with memory settings (another precision, frozen matrices in fewer bits, gradient checkpointing) is compared with
  the plain row of the same configuration, too.
- Speed and measured memory stand in a table of their own for each hardware class, and are never compared across.
- What failed keeps its row, with its status and the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...results import CostRecord, canonical_json
from ..configurations import anchor, common_config, differences, grouped
from ..subjects import Subjects
from .sheet import CostRow, CostSheet, Efficiency, HardwareTable, MeasuredRow, MemorySettings, Shape

REFERENCE = "full"
"""The method that ratios are relative to."""

BARE = "linear"
"""The method that adds nothing to the backbone but a head."""


def make_efficiency(costs: Iterable[CostRecord], subjects: Subjects) -> Efficiency:
    """Sort cost records into sheets."""
    costs = sorted(costs, key=lambda cost: (cost.spec.backbone, _shape(cost), cost.spec.method.name, cost.cost_id))
    defaults = {
        name: subjects.methods[name].defaults or common_config(cost.spec.method.config for cost in group)
        for name, group in grouped(costs, lambda cost: cost.spec.method.name).items()
    }
    sizes = {name: _bare_size(group) for name, group in grouped(costs, lambda cost: cost.spec.backbone).items()}
    sheets = grouped(costs, lambda cost: (cost.spec.backbone, _shape(cost)))
    return Efficiency(
        [
            _sheet(backbone, sizes[backbone], shape, group, subjects, defaults)
            for (backbone, shape), group in sheets.items()
        ]
    )


def _shape(cost: CostRecord) -> Shape:
    spec = cost.spec
    return Shape(spec.batch_size, spec.input_shape, spec.num_classes)


def _sheet(
    backbone: str,
    size: int | None,
    shape: Shape,
    costs: Sequence[CostRecord],
    subjects: Subjects,
    defaults: Mapping[str, Mapping[str, Any]],
) -> CostSheet:
    place = (backbone, shape.batch_size, shape.input_shape, shape.num_classes)
    versions = {
        name: sorted({cost.spec.method.version for cost in group})
        for name, group in grouped(costs, lambda cost: cost.spec.method.name).items()
    }
    rows = []
    for (method, settings), group in grouped(
        costs, lambda cost: (canonical_json(cost.spec.method), MemorySettings.of(cost.spec))
    ).items():
        spec = group[0].spec.method
        version_badge = (f"v{spec.version}",) if len(versions[spec.name]) > 1 else ()
        rows.append(
            CostRow(
                key=anchor("cost", *place, method.decode(), *settings.badges),
                method=subjects.methods[spec.name],
                version=spec.version,
                config=spec.config,
                differences=differences(spec.config, defaults[spec.name]),
                superseded=spec.version != versions[spec.name][-1],
                badges=(*version_badge, *settings.badges),
                settings=settings,
                record=min(group, key=_standing),
                measured=tuple(cost for cost in group if cost.spec.hardware_class is not None),
            )
        )
    _compare(rows)
    rows = _in_order(rows)
    return CostSheet(anchor("sheet", *place), subjects.backbones[backbone], size, shape, rows, _hardware(rows, place))


def _standing(cost: CostRecord) -> tuple[bool, str]:
    """Of a row's records the first is shown: one with an estimate, if possible one without hardware."""
    return (cost.memory is None, cost.spec.hardware_class or "")


def _compare(rows: Sequence[CostRow]) -> None:
    """Find for each row the rows that it is compared with."""
    references = [row for row in rows if row.method.name == REFERENCE and not row.superseded]
    references.sort(
        key=lambda row: (row.peak is not None, row.settings.frozen_dtype == "float32")
    )  # the last one stays
    full = {row.settings.of_full: row for row in references}
    plain = {row.identity: row for row in rows if row.settings.plain}
    for row in rows:
        row.full = full.get(row.settings.of_full)
        row.plain = None if row.settings.plain else plain.get(row.identity)


def _in_order(rows: Sequence[CostRow]) -> list[CostRow]:
    """By the training peak of the plain row, which those with memory settings follow; what has no peak comes last."""
    blocks = [
        sorted(block, key=lambda row: row.settings.order) for block in grouped(rows, lambda row: row.identity).values()
    ]
    blocks.sort(key=lambda block: (block[0].peak is None, block[0].peak or 0, block[0].label))
    return [row for block in blocks for row in block]


def _hardware(rows: Sequence[CostRow], place: tuple[Any, ...]) -> list[HardwareTable]:
    tables = []
    for name in sorted({str(cost.spec.hardware_class) for row in rows for cost in row.measured}):
        records = {row.key: cost for row in rows for cost in row.measured if cost.spec.hardware_class == name}
        measured = [
            MeasuredRow(row, records[row.key], records.get(row.full.key) if row.full else None)
            for row in rows
            if row.key in records
        ]
        tables.append(HardwareTable(anchor("hardware", *place, name), name, measured))
    return tables


def _bare_size(costs: Sequence[CostRecord]) -> int | None:
    """A backbone's parameters: all of `BARE` but its head, or the smallest model's where that is unknown."""
    known = [(cost.spec.method.name, cost.params) for cost in costs if cost.params]
    bare = [params for name, params in known if name == BARE] or [params for _, params in known]
    return min((each.total - each.trainable + each.trainable_without_head for each in bare), default=None)

"""The board as rows: one for each row of each table and each task that it has runs on, in the board's order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..accuracy.table import Board, Cell, Figure, Row, Table, TaskColumns
from ..costs.sheet import Efficiency
from ..summary import Summary


def result_rows(board: Board) -> Iterator[dict[str, Any]]:
    """Columns as in ``columns.csv``; None where there is nothing."""
    for track in board.tracks:
        for table in track.tables:
            of_table = _table(table)
            for row in table.rows:
                of_row = of_table | _row(row)
                for group in table.groups:
                    for task in group.tasks:
                        cell = row.cells.get(task.task.name)
                        if cell is not None:
                            yield of_row | {"group": group.name} | _cell(task, cell, row.figures)


def run_places(board: Board) -> Iterator[tuple[str, dict[str, str]]]:
    """By run id: the row that a run stands in, or why it stands in none."""
    for run_id, position in board.positions.items():
        yield run_id, {"board.row": position.row.key}
    for run_id, reason in board.left_out.items():
        yield run_id, {"board.left_out": reason}


def cost_places(efficiency: Efficiency) -> Iterator[tuple[str, dict[str, Any]]]:
    """By cost id: the row of a sheet that a record stands in, with its ratios where it is the row's estimate."""
    for row in (row for sheet in efficiency.sheets for row in sheet.rows):
        for cost in row.measured:
            yield cost.cost_id, {"board.row": row.key}
        ratios = {
            "board.memory_relative_to_full": row.memory_ratio,
            "board.train_flops_relative_to_full": row.flops_ratio,
        }
        yield row.record.cost_id, {"board.row": row.key} | ratios


def _table(table: Table) -> dict[str, Any]:
    return {
        "table": table.key,
        "track": table.track,
        "backbone": table.backbone.name,
        "weights": list(table.weights),
        "protocol": table.protocol,
        "protocol_version": table.protocol_version,
        "section": table.section or None,
        "unit": table.scale.unit,
        "higher_is_better": table.scale.higher_is_better,
    }


def _row(row: Row) -> dict[str, Any]:
    parameters, budget, mean = row.parameters, row.budget, row.mean
    return {
        "row": row.key,
        "label": row.label,
        "method": row.method.name,
        "family": row.method.family,
        "method_version": row.version,
        "config": row.config,
        "differences": list(row.differences),
        "badges": list(row.badges),
        "state": row.state,
        "remark": row.remark or None,
        "rank": row.rank,
        "tuner": budget.tuner if budget else None,
        "trials": budget.trials if budget else None,
        "studies": budget.studies if budget else None,
        "parameters": parameters.median if parameters else None,
        "parameters_low": parameters.low if parameters else None,
        "parameters_high": parameters.high if parameters else None,
        "parameters_share": parameters.share if parameters else None,
        "row_mean": mean.mean if mean else None,
        "row_std": mean.std if mean else None,
        "row_n": mean.n if mean else None,
        "gain": row.gain,
        "cost_id": row.cost.record.cost_id if row.cost else None,
    }


def _cell(task: TaskColumns, cell: Cell, figures: list[Figure]) -> dict[str, Any]:
    summary = cell.summary
    parts = {part.label: cell.part(part.label) for part in task.parts}
    published = [
        {"value": beside.figure.value, "source": beside.figure.source}
        for beside in figures[task.headline.index].published
    ]
    studies = [mean if math.isfinite(mean) else None for mean in summary.studies] if summary else []
    return {
        "task": task.task.name,
        "task_version": task.version,
        "metric": next((run.quality.metric for run in cell.runs if run.quality), None),
        "counts": task.counts,
        "complete": cell.complete,
        "mean": summary.mean if summary else None,
        "std": summary.std if summary else None,
        "n": summary.n if summary else 0,
        "failures": len(cell.failures),
        "statuses": dict(Counter(run.status for run in cell.runs)),
        "study_means": studies or None,
        "parts": {label: _summary(part) for label, part in parts.items() if part} or None,
        "published": published or None,
        "runs": [run.run_id for run in cell.runs],
    }


def _summary(summary: Summary) -> Mapping[str, float | None]:
    return {"mean": summary.mean, "std": summary.std, "n": summary.n}

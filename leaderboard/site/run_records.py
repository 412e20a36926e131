"""What ``run.html`` shows of a run, in files of which it loads one: a run has no page of its own.

``data/runs/<first digits of the id>.js`` holds records, one a line, each with what the board knows of it besides;
``data/rows/<key>.js`` and ``data/searches/<key>.js`` what the runs of a row of the board, or of a search, have in
common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from ...results import RunRecord
from ..accuracy.table import Board, Cell, Row
from ..formatting import figure, plain, spread
from ..subjects import Subjects
from ..tuning.searches import Search
from .command import reproduce
from .data import as_json, quoted, write_data

CHUNK_BYTES = 500_000
"""About the most that is loaded to show one run."""

_SAMPLE = 100
"""Records by which the size of all is estimated."""


def write_run_records(
    records: Sequence[RunRecord], board: Board, subjects: Subjects, folder: Path, chunk_bytes: int = CHUNK_BYTES
) -> int:
    """Write the files that ``run.html`` loads.

    Args:
        records: in the order of their ids.

    Returns:
        How many digits of an id name the file that it is in.
    """
    write_data(folder / "data" / "subjects.js", _subjects(subjects), "peftmark.subjects")
    for search in board.searches.values():
        name = search_name(search)
        write_data(folder / "data" / "searches" / f"{name}.js", {name: _search(search)}, "peftmark.searched()")
    for track in board.tracks:
        for table in track.tables:
            for row in table.rows:
                data = {row.key: _row(row, f"{track.page}#{table.key}")}
                write_data(folder / "data" / "rows" / f"{row.key}.js", data, "peftmark.ranked()")
    place = folder / "data" / "runs"
    place.mkdir(parents=True, exist_ok=True)
    digits = digits_of_a_file(records, chunk_bytes)
    about = _Besides(board, subjects)
    for prefix, group in groupby(records, key=lambda run: run.run_id[:digits]):
        lines = [b'"%b":[%b,%b]' % (run.run_id.encode(), about(run), quoted(msgspec.json.encode(run))) for run in group]
        (place / f"{prefix}.js").write_bytes(b"peftmark.loaded({\n%b\n});\n" % b",\n".join(lines))
    return digits


def digits_of_a_file(records: Sequence[RunRecord], chunk_bytes: int) -> int:
    """How many digits files are named by, so that one has `chunk_bytes` at most: ids are spread evenly."""
    sample = records[:: max(1, len(records) // _SAMPLE)]
    size = sum(len(msgspec.json.encode(run)) for run in sample) / max(1, len(sample)) * len(records)
    digits = 1
    while size > chunk_bytes * 16**digits:
        digits += 1
    return digits


def outcome(run: RunRecord) -> str:
    """A run's figure, or its status where there is none."""
    if run.trial is not None:
        return figure(run.trial.validation)
    return figure(run.quality.test) if run.quality is not None else run.status


def search_name(search: Search) -> str:
    return search.key[:16]


class _Besides:
    """What is known of a run besides its record, as JSON."""

    def __init__(self, board: Board, subjects: Subjects) -> None:
        self.board = board
        self.defaults = {name: method.defaults for name, method in subjects.methods.items()}
        self.seeds = {key: search.seeds for key, search in board.searches.items()}

    def __call__(self, run: RunRecord) -> bytes:
        search = self.board.search_of.get(run.run_id)
        position = self.board.positions.get(run.run_id)
        seeds = self.seeds[search.key] if search else ()
        about = {"command": reproduce(run.spec, self.defaults[run.spec.method.name], seeds)}
        if position is not None:
            about["row"] = position.row.key
        if run.run_id in self.board.left_out:
            about["left_out"] = self.board.left_out[run.run_id]
        if search is not None:
            about["search"] = search_name(search)
        return as_json(about)


def _row(row: Row, table: str) -> dict[str, Any]:
    """
    Args:
        table: its address.
    """
    return {
        "table": table,
        "rank": row.rank,
        "remark": row.remark,
        "cost": row.cost.key if row.cost else None,
        "tuned": row.budget is not None,
        "cells": [(task, _cell(row, cell)) for task, cell in row.cells.items()],
    }


def _cell(row: Row, cell: Cell) -> dict[str, Any]:
    summary = cell.summary
    return {
        "figure": f"{figure(summary.mean)} {spread(summary.std)}".rstrip() if summary else None,
        "studies": len(summary.studies) if summary else 0,
        "runs": [] if row.budget else _by_seed(cell.runs),
    }


def _by_seed(runs: Iterable[RunRecord]) -> list[tuple[str, int, str]]:
    return [(run.run_id, run.spec.seed, outcome(run)) for run in runs]


def _subjects(subjects: Subjects) -> Mapping[str, list[tuple[str, Mapping[str, Any]]]]:
    """Pairs, not objects: a name may be one that objects have already."""
    return {
        "methods": [
            (method.name, {"slug": method.slug, "family": method.family, "colour": method.colour})
            for method in subjects.methods.values()
        ],
        "tasks": [
            (task.name, {"slug": task.slug, "chance": figure(task.chance) if task.chance is not None else None})
            for task in subjects.tasks.values()
        ],
        "backbones": [(backbone.name, {"slug": backbone.slug}) for backbone in subjects.backbones.values()],
    }


def _search(search: Search) -> dict[str, Any]:
    trials = []
    for trial in search.indices:
        run = search.trials.get(trial)
        trials.append(
            {
                "trial": trial,
                "run": run.run_id if run else None,
                "settings": [f"{key}={plain(value)}" for key, value in search.settings(trial).items()],
                "figure": outcome(run) if run else "–",
                "pruned": bool(run and run.trial and run.trial.pruned),
                "studies": search.studies_of(trial),
                "chosen": search.chosen_by(trial),
                "finals": _by_seed(search.finals.get(trial, ())),
            }
        )
    return {
        "words": search.budget.words.capitalize(),
        "tuner": search.tuning.tuner,
        "space": sorted(search.tuning.space.items()),
        "missing": search.missing,
        "studies": search.budget.studies,
        "trials": trials,
    }

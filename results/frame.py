"""Records as a pandas frame: one row a record, nested fields joined by dots (``spec.method.name``)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from inspect import isclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec

from ..errors import PeftmarkError
from .cost import CostRecord
from .record import RunRecord
from .store import Store, no_garbage_collection

if TYPE_CHECKING:
    import pandas


def load_results(path: str | Path) -> pandas.DataFrame:
    """All records below a folder, one row each; a damaged file becomes a warning.

    Columns are the record's fields, nested ones joined by dots: ``spec.method.name``, ``spec.task.name``,
    ``quality.test`` (in ``quality.unit``), ``params.trainable_without_head``, …; ``spec.method.config`` stays a dict.
    A search's trials have a ``trial.validation`` in place of ``quality``; where a run is in no search, its
    ``spec.tuning.stage`` and the like are NaN.

    Raises:
        PeftmarkError: where there is no such folder.
    """
    records, problems = _store(path).load()
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return to_frame(records)


def load_costs(path: str | Path) -> pandas.DataFrame:
    """All cost records below a folder, one row each; a damaged file becomes a warning.

    Columns are named as in `load_results`: ``spec.method.name``, ``spec.backbone``, ``spec.batch_size``,
    ``params.trainable_without_head``, ``memory.estimated.train_peak_allocated_bytes``,
    ``compute.forward_flops_per_image``, ``speed.train_step_ms.median``, …

    Raises:
        PeftmarkError: where there is no such folder.
    """
    records, problems = _store(path).load_costs()
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return costs_to_frame(records)


def _store(path: str | Path) -> Store:
    if not Path(path).is_dir():
        raise PeftmarkError(f"no results folder {path}: run `peftmark run` first, or name another folder")
    return Store(path)


def to_frame(records: list[RunRecord]) -> pandas.DataFrame:
    """Rows sorted by task, method, seed and trial, so that the same records always give the same frame."""
    order = ["spec.task.name", "spec.backbone.name", "spec.method.name", "spec.seed", "spec.trial", "run_id"]
    return _frame(RunRecord, records, order)


def costs_to_frame(records: list[CostRecord]) -> pandas.DataFrame:
    """Rows sorted by backbone, batch size and method."""
    return _frame(CostRecord, records, ["spec.backbone", "spec.batch_size", "spec.method.name", "cost_id"])


def _frame(kind: type[msgspec.Struct], records: Sequence[msgspec.Struct], order: list[str]) -> pandas.DataFrame:
    import pandas as pd

    with no_garbage_collection():
        frame = pd.DataFrame(values_by_column(kind, records), dtype=None if records else object)
        return frame.sort_values(order, ignore_index=True)


def values_by_column(kind: type[msgspec.Struct], records: Sequence[msgspec.Struct]) -> dict[str, list[Any]]:
    """What a frame is made of, as it stands in the records; NaN where a record has no such part."""
    return dict(_columns(kind, [msgspec.to_builtins(record) for record in records]))


_WHOLE = frozenset({"spec.method.config", "spec.protocol.overrides", "quality.tests", "env.packages", "found"})
"""Dictionaries whose keys differ from record to record: one column each."""

_MISSING = float("nan")


def _columns(
    struct: type[msgspec.Struct], rows: Sequence[Mapping[str, Any] | None], prefix: str = ""
) -> Iterator[tuple[str, list[Any]]]:
    """The same columns whatever the records hold: a failed run has no quality, but the column is there."""
    for item in msgspec.structs.fields(struct):
        name = f"{prefix}{item.name}"
        values = [_MISSING if row is None else row.get(item.name, _MISSING) for row in rows]
        types = get_args(item.type) if get_origin(item.type) is UnionType else (item.type,)  # of ``Quality | None``
        structs = [part for part in types if isclass(part) and issubclass(part, msgspec.Struct)]
        if structs and name not in _WHOLE:
            yield from _columns(structs[0], [each if isinstance(each, dict) else None for each in values], f"{name}.")
        else:
            yield name, values

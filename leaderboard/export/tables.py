"""Tables of runs, results and costs, as CSV, Parquet or JSON: what the board shows, for other programs.

What each column means stands in ``columns.csv``, which goes along; its types are those of the tables. Nested values are
JSON in a text column, but in JSON, where they are themselves.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...errors import PeftmarkError
from ...results import CostRecord, RunRecord
from ...results.frame import values_by_column
from ..contents import Contents, read_contents
from ..site.folder import Kind, check_replaceable, replacing
from .places import check_new, new_file
from .rows import cost_places, result_rows, run_places

if TYPE_CHECKING:
    import pandas

COLUMNS = Path(__file__).with_name("columns.csv")
EXPORT = Kind("export", "an export")

_TYPES = {"string": "string", "integer": "Int64", "float": "Float64", "boolean": "boolean", "json": "string"}
"""Of a pandas.DataFrame, by the dictionary's: all can be missing."""

_README = """\
# What a peftmark board shows, as tables

- `runs`: a row a run, one for each record; `board.row` is the row of `results` that it stands in.
- `results`: a row for each row of the board and each task. What may be compared stands in one `table`, and ranks are
  given among rows of one budget (`trials`, `studies`, `tuner`). An empty `mean` is a failure, not a zero.
- `costs`: a row a cost record. Times of two hardware classes cannot be compared.

`columns.csv` says of every column its type, its unit and what it means; columns of type json are JSON texts, but
in JSON files, where they are values. An empty field means that there is nothing. In pandas (before version 3 with
`float_precision="round_trip"` for CSV, or the last digit of a number may be another):

    pandas.read_csv("results.csv", keep_default_na=False, na_values=[""])
    pandas.read_parquet("results.parquet")
    pandas.read_json("results.json", dtype=False)
"""


def write_csv(results: Path, runs: Sequence[str], out: Path) -> list[Path]:
    """Arguments, result and errors are those of all formats.

    Args:
        results: a folder of records, with their cards.
        runs: none; the tables are of all.
        out: a folder, new, empty or an earlier export, or the file of one table (``results.csv``), which must be new.

    Returns:
        What was written.

    Raises:
        PeftmarkError: where there are no records, runs are named, or `out` cannot or must not be written.
    """
    return _write(results, runs, out, ".csv", _csv)


def write_parquet(results: Path, runs: Sequence[str], out: Path) -> list[Path]:
    """As `write_csv`; by pyarrow."""
    if importlib.util.find_spec("pyarrow") is None:
        raise PeftmarkError("--format parquet needs pyarrow: pip install 'peftmark[export]', or take --format csv")
    return _write(results, runs, out, ".parquet", _parquet)


def write_json(results: Path, runs: Sequence[str], out: Path) -> list[Path]:
    """As `write_csv`: each table is a list of objects."""
    return _write(results, runs, out, ".json", _json)


def _write(
    results: Path,
    runs: Sequence[str],
    out: Path,
    suffix: str,
    write: Callable[[str, Mapping[str, list[Any]], IO[bytes]], None],
) -> list[Path]:
    if runs:
        raise PeftmarkError("tables are of all runs: leave RUN out, or choose another --format")
    names = sorted(dictionary())
    if out.suffix == suffix:
        if out.stem not in names:
            files = ", ".join(f"{name}{suffix}" for name in names)
            raise PeftmarkError(f"--out {out}: name a folder for all tables, or a file for one of them: {files}")
        check_new(out)
        contents = _read(results)
        with new_file(out) as file:
            write(out.stem, make_table(contents, out.stem), file)
        return [out]
    check_replaceable(out, results, EXPORT)
    contents = _read(results)
    with replacing(out, EXPORT) as folder:
        for name in names:
            with (folder / f"{name}{suffix}").open("wb") as file:
                write(name, make_table(contents, name), file)
        shutil.copyfile(COLUMNS, folder / COLUMNS.name)
        (folder / "README.md").write_text(_README)
    return [out / name for name in (*(f"{name}{suffix}" for name in names), COLUMNS.name, "README.md")]


def _read(results: Path) -> Contents:
    """With a warning where files were left out."""
    contents = read_contents(results)
    if contents.problems:
        n = len(contents.problems)
        said = f"{n} file{'s' * (n > 1)} could not be read and {'are' if n > 1 else 'is'} left out"
        warnings.warn(f"{said}: `peftmark validate {results}` says why", stacklevel=2)
    return contents


@lru_cache
def dictionary() -> Mapping[str, Mapping[str, str]]:
    """The type of each column of each table."""
    tables: dict[str, dict[str, str]] = {}
    with COLUMNS.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            tables.setdefault(line["table"], {})[line["column"]] = line["type"]
    return tables


def make_table(contents: Contents, name: str) -> dict[str, list[Any]]:
    """The values of each column that the dictionary has, None where there is none."""
    values = {"runs": _runs, "results": _results, "costs": _costs}[name](contents)
    return {column: [None if _missing(value) else value for value in values[column]] for column in dictionary()[name]}


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _runs(contents: Contents) -> Mapping[str, list[Any]]:
    """By task, backbone, method, seed and trial, as `results.frame` has them."""

    def order(run: RunRecord) -> tuple[Any, ...]:
        spec = run.spec
        return (spec.task.name, spec.backbone.name, spec.method.name, spec.seed, spec.trial, run.run_id)

    records = sorted(contents.records, key=order)
    places = dict(run_places(contents.board))
    return values_by_column(RunRecord, records) | _beside("runs", [places.get(run.run_id, {}) for run in records])


def _results(contents: Contents) -> Mapping[str, list[Any]]:
    rows = list(result_rows(contents.board))
    return {column: [row[column] for row in rows] for column in dictionary()["results"]}


def _costs(contents: Contents) -> Mapping[str, list[Any]]:
    def order(cost: CostRecord) -> tuple[Any, ...]:
        return (cost.spec.backbone, cost.spec.batch_size, cost.spec.method.name, cost.cost_id)

    records = sorted(contents.costs, key=order)
    places = dict(cost_places(contents.efficiency))
    return values_by_column(CostRecord, records) | _beside("costs", [places.get(cost.cost_id, {}) for cost in records])


def _beside(name: str, places: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What the board adds to records."""
    columns = [column for column in dictionary()[name] if column.startswith("board.")]
    return {column: [place.get(column) for place in places] for column in columns}


def _frame(name: str, table: Mapping[str, list[Any]]) -> pandas.DataFrame:
    """
    Raises:
        PeftmarkError: on a number of more than 64 bits.
    """
    import pandas as pd

    columns = {}
    for column, kind in dictionary()[name].items():
        values = table[column]
        if kind == "json":
            values = [None if value is None else _as_json(value) for value in values]
        try:
            columns[column] = pd.Series(values, dtype=_TYPES[kind])
        except OverflowError as error:
            raise PeftmarkError(
                f"the table {name} cannot be written: a number in {column} has more than 64 bits; --format json can"
            ) from error
    return pd.DataFrame(columns)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _csv(name: str, table: Mapping[str, list[Any]], file: IO[bytes]) -> None:
    _frame(name, table).to_csv(
        file, index=False, encoding="utf-8", lineterminator="\r\n"
    )  # as RFC 4180 has it: a lone \r is quoted, too


def _parquet(name: str, table: Mapping[str, list[Any]], file: IO[bytes]) -> None:
    _frame(name, table).to_parquet(file, engine="pyarrow", index=False)


def _json(name: str, table: Mapping[str, list[Any]], file: IO[bytes]) -> None:
    """A row a line."""
    lines = (_as_json(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True))
    file.write(b"[" + ",\n".join(lines).encode() + b"]\n")

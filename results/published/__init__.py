"""Figures that papers and their repositories publish, each with its source; names aligned to peftmark's.

``figures.csv`` holds them under the names of their sources, as they were read; ``names.toml`` says what those names are
called here. Nothing in this package is measured, and nothing in it enters a ranking.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from ...errors import PeftmarkError
from ..record import RecordPart

_HERE = Path(__file__).parent

COLUMNS = ("benchmark", "method", "dataset", "group", "metric", "value", "trainable_params_millions", "backbone")
"""Of the file; ``source`` is the last."""

Metric = Literal["top1", "top1_last_epoch", "top1_best_on_test", "base", "new", "harmonic"]
Field = Literal["method", "task", "backbone"]


class PublishedFigure(RecordPart, frozen=True):
    """One published figure.

    Attributes:
        method, task, backbone: peftmark's names; those of the source where there is none (see `unaligned`).
        setting: what the source adds to the backbone's name: frames of a clip, where adapters stand.
        metric: ``top1_best_on_test`` is the best epoch on the test split, which no protocol of peftmark reads.
        value: percent.
        parameters_millions: trainable ones, as the source counts them.
        unaligned: which of the three names peftmark does not have.
        line: of the file.
    """

    benchmark: str
    title: str
    method: str
    task: str
    backbone: str
    setting: str
    metric: Metric
    value: float
    parameters_millions: float | None
    source: str
    unaligned: tuple[Field, ...]
    line: int

    @property
    def comparable(self) -> bool:
        """Whether a measured headline figure of the same method, task and backbone may stand beside it."""
        return not self.unaligned and self.metric in ("top1", "top1_last_epoch")


class _Benchmark(RecordPart, frozen=True):
    title: str
    tasks: str
    """With {} for the name of a data set."""
    methods: dict[str, str] = {}
    backbones: dict[str, str] = {}
    """By method: those that are not on the backbone that the others are on."""
    renamed: dict[str, str] = {}
    no_task: list[str] = []
    """Data sets of the source that are no task here."""


class Names(RecordPart, frozen=True):
    """What the sources' names are called in peftmark.

    Attributes:
        backbones: by the beginning of the source's name; what follows it is a setting.
        absent: methods that peftmark does not have, with their papers' spelling.
    """

    benchmarks: dict[str, _Benchmark]
    backbones: dict[str, str]
    absent: dict[str, str]


@lru_cache
def published_names() -> Names:
    return msgspec.convert(tomllib.loads((_HERE / "names.toml").read_text(encoding="utf-8")), Names)


@lru_cache
def load_published() -> tuple[PublishedFigure, ...]:
    """All published figures, in the order of the file."""
    path = _HERE / "figures.csv"
    return read_published(path.read_text(encoding="utf-8"), published_names(), path.name)


def read_published(text: str, names: Names, file: str) -> tuple[PublishedFigure, ...]:
    """Figures of a CSV file.

    Raises:
        PeftmarkError: where a column is missing, a figure is no percentage, or a benchmark is unknown; it names the
            line.
    """
    lines = csv.DictReader(io.StringIO(text))
    missing = [name for name in (*COLUMNS, "source") if name not in (lines.fieldnames or ())]
    if missing:
        raise PeftmarkError(f"{file} has no column {missing[0]}")
    return tuple(_figure(row, names, f"{file}, line {lines.line_num}", lines.line_num) for row in lines)


def _figure(row: Mapping[str, str], names: Names, where: str, line: int) -> PublishedFigure:
    if None in row.values() or None in row:
        raise PeftmarkError(f"{where}: there are not {len(COLUMNS) + 1} columns")
    benchmark = names.benchmarks.get(row["benchmark"])
    if benchmark is None:
        raise PeftmarkError(f"{where}: names.toml does not know the benchmark {row['benchmark']}")
    unaligned: list[Field] = []
    method = benchmark.methods.get(row["method"], row["method"])
    if method in names.absent:
        unaligned.append("method")
    dataset = row["dataset"]
    if dataset in benchmark.no_task:
        unaligned.append("task")
        task = dataset
    else:
        task = benchmark.tasks.format(benchmark.renamed.get(dataset, dataset))
    backbone, setting = _backbone(row["backbone"], names.backbones)
    backbone = benchmark.backbones.get(method, backbone)
    if backbone is None:
        unaligned.append("backbone")
    try:
        figure = msgspec.convert(
            {
                "benchmark": row["benchmark"],
                "title": benchmark.title,
                "method": method,
                "task": task,
                "backbone": backbone or row["backbone"].strip(),
                "setting": setting,
                "metric": row["metric"],
                "value": row["value"],
                "parameters_millions": row["trainable_params_millions"] or None,
                "source": row["source"],
                "unaligned": unaligned,
                "line": line,
            },
            PublishedFigure,
            strict=False,
        )
    except msgspec.ValidationError as error:
        raise PeftmarkError(f"{where}: {error}") from error
    if not 0 <= figure.value <= 100:
        raise PeftmarkError(f"{where}: {row['value']} is no percentage")
    if not figure.source:
        raise PeftmarkError(f"{where}: a published figure needs its source")
    return figure


def _backbone(printed: str, known: Mapping[str, str]) -> tuple[str | None, str]:
    """A backbone's name in peftmark, None where it has none, and what else the source says."""
    for beginning, name in known.items():
        if printed == beginning or printed.startswith(f"{beginning} "):
            return name, printed.removeprefix(beginning).strip()
    return None, ""

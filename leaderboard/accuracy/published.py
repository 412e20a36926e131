"""Published figures on the board: tables of their own, and beside the measured cells that they can be compared with.

They are put beside cells after the tables are made and the rows ranked, so they can change neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...results.published import PublishedFigure, published_names
from ..configurations import anchor, grouped
from ..summary import Summary
from .table import Beside, Board, Row, Table

METRICS = {
    "top1": "top-1 accuracy",
    "top1_last_epoch": "top-1 accuracy, last epoch",
    "top1_best_on_test": "top-1 accuracy, best epoch on the test split",
    "parts": "accuracy on base and on new classes and their harmonic mean, over eleven data sets",
}


@dataclass(frozen=True)
class PublishedRow:
    """What one source publishes of one method on one backbone."""

    method: str
    absent: bool
    """Whether peftmark does not have the method."""
    backbone: str
    known_backbone: bool
    setting: str
    parameters_millions: float | None
    source: str
    figures: dict[str, PublishedFigure]
    """By column."""


@dataclass(frozen=True)
class PublishedTable:
    """Figures of one benchmark and metric, rows by name: nothing here is ranked."""

    title: str
    metric: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    @property
    def key(self) -> str:
        return anchor("published", self.title, self.metric)

    @property
    def tab(self) -> str:
        return f"{self.title}, best test epoch" if self.metric == "top1_best_on_test" else self.title

    @property
    def sources(self) -> list[str]:
        return sorted({row.source for row in self.rows})


@dataclass(frozen=True)
class Comparison:
    """A measured figure and a published one of the same method, task and backbone."""

    table: Table
    row: Row
    task: str
    measured: Summary
    beside: Beside


@dataclass(frozen=True)
class Published:
    figures: Sequence[PublishedFigure]
    comparisons: Sequence[Comparison]

    @cached_property
    def tables(self) -> list[PublishedTable]:
        def key(figure: PublishedFigure) -> tuple[str, str]:
            return figure.title, figure.metric if figure.metric.startswith("top1") else "parts"

        return [_table(title, metric, group) for (title, metric), group in grouped(self.figures, key).items()]

    @property
    def methods(self) -> int:
        return len({figure.method for figure in self.figures})


def compare(board: Board, figures: Sequence[PublishedFigure]) -> Published:
    """Put published figures beside the cells of the board whose method, task and backbone they share."""
    by_cell = grouped((f for f in figures if f.comparable), lambda f: (f.method, f.task, f.backbone))
    comparisons: list[Comparison] = []
    for table in (table for track in board.tracks for table in track.tables):
        columns = {task.task.name: task.headline.index for task in table.tasks}
        for row in table.rows:
            if "random" in {run.spec.backbone.weights for run in row.runs}:
                continue  # published figures are of pretrained backbones
            for task, column in columns.items():
                found, shown = by_cell.get((row.method.name, task, table.backbone.name), []), row.figures[column]
                if shown.summary is None or not found:
                    continue
                shown.published = tuple(Beside(figure, shown.summary.mean - figure.value) for figure in found)
                comparisons += [Comparison(table, row, task, shown.summary, beside) for beside in shown.published]
    comparisons.sort(key=lambda c: (c.row.method.name, c.task, c.table.backbone.name, c.row.key, c.beside.figure.line))
    return Published(figures, comparisons)


def _table(title: str, metric: str, figures: Iterable[PublishedFigure]) -> PublishedTable:
    figures = list(figures)
    absent = published_names().absent
    rows = []
    by_row = grouped(figures, lambda f: (f.method, f.backbone, f.setting, f.source, f.parameters_millions))
    for (method, backbone, setting, source, parameters), group in by_row.items():
        rows.append(
            PublishedRow(
                method=absent.get(method, method),
                absent="method" in group[0].unaligned,
                backbone=backbone,
                known_backbone="backbone" not in group[0].unaligned,
                setting=setting,
                parameters_millions=parameters,
                source=source,
                figures={_column(figure): figure for figure in group},
            )
        )
    rows.sort(key=lambda row: (row.method.lower(), row.backbone, row.setting, row.source))
    return PublishedTable(title, metric, tuple(dict.fromkeys(map(_column, figures))), tuple(rows))


def _column(figure: PublishedFigure) -> str:
    return figure.task if figure.metric.startswith("top1") else figure.metric

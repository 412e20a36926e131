"""What the script of the page of trade-offs works with: the ranked rows of every table, their figures and measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..accuracy.measures import Measure, measures_of
from ..accuracy.table import Board, Row, Table
from ..accuracy.tradeoffs import (
    column_words,
    main_tradeoffs,
    ranking_words,
    rankings,
    settings_within_ranking,
    spans_decades,
)
from ..drawings.svg import SYMBOLS
from ..summary import Summary


def tradeoffs_data(board: Board) -> dict[str, Any]:
    tables = [(track.title, table) for track in board.tracks for table in track.tables if main_tradeoffs(table)]
    return {"symbols": SYMBOLS, "tables": [_table(title, table) for title, table in tables]}


def _table(track: str, table: Table) -> dict[str, Any]:
    of_rankings = rankings(table)
    rows = [row for ranked in of_rankings.values() for row in ranked]
    measures = measures_of(rows)
    figures = [_figures(row) for row in rows]
    columns = [(group, column) for group, column in table.columns if any(column.key in each for each in figures)]
    drawn = {chart.budget: f"figures/{chart.key}.svg" for chart in main_tradeoffs(table)}
    of = [number for number, ranked in enumerate(of_rankings.values()) for _ in ranked]
    return {
        "key": table.key,
        "track": track,
        "backbone": table.backbone.name,
        "protocol": " · ".join([table.protocol_name, *([table.section] if table.section else []), *_unit(table)]),
        "sign": table.scale.sign,
        "higher_is_better": table.scale.higher_is_better,
        "measures": [
            {
                "key": measure.key,
                "label": measure.label,
                "axis": measure.axis or measure.title,
                "logarithmic": spans_decades(value for row in rows if (value := measure.of(row)) is not None),
            }
            for measure in measures
        ],
        "columns": [
            {"key": column.key, "group": group, "label": column_words(table, column)} for group, column in columns
        ],
        "rankings": [{"name": ranking_words(budget), "figure": drawn.get(budget)} for budget in of_rankings],
        "rows": [_row(row, measures, figure, ranking) for row, figure, ranking in zip(rows, figures, of, strict=True)],
    }


def _unit(table: Table) -> list[str]:
    return [] if table.scale.unit == "percent" else [table.scale.unit]


def _row(row: Row, measures: Sequence[Measure], figures: dict[str, Summary], ranking: int) -> dict[str, Any]:
    return {
        "method": row.method.name,
        "settings": settings_within_ranking(row),
        "href": row.href,
        "family": row.method.family,
        "colour": row.method.colour,
        "ranking": ranking,
        "measures": {
            measure.key: [value, measure.write(value)] for measure in measures if (value := measure.of(row)) is not None
        },
        "figures": {key: [summary.mean, summary.std, summary.n] for key, summary in figures.items()},
    }


def _figures(row: Row) -> dict[str, Summary]:
    return {figure.column.key: figure.summary for figure in row.figures if figure.summary is not None}

"""What the script of a track's page works with: the same rows, columns and figures as the page, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...results.statistics import LEVEL, Withheld
from ..accuracy.measures import Measure
from ..accuracy.table import Figure, Row, Table, Track
from ..citations import cite, cite_peftmark
from ..statistics.ranking import Ranking
from ..statistics.uncertainty import sampling_of
from ..subjects import Subject


def overview_data(track: Track, measures: dict[str, list[Measure]], rankings: Sequence[Ranking]) -> dict[str, Any]:
    """
    Args:
        measures: those of each table, by its key.
        rankings: of the site's tables.
    """
    from scipy.special import stdtrit

    every = {measure.key: measure for table in track.tables for measure in measures[table.key]}
    return {
        "track": track.key,
        "measures": [_budget(measure, track) for measure in every.values()],
        "tables": [
            _table(table, measures[table.key], [each for each in rankings if each.table is table])
            for table in track.tables
        ],
        "cite": cite_peftmark(),
        "papers": {method.name: entry for method in _methods(track) if (entry := cite(method))},
        "student": [float(stdtrit(freedom, (1 + LEVEL) / 2)) for freedom in range(1, 31)],
    }


def _methods(track: Track) -> list[Subject]:
    return list({row.method.name: row.method for table in track.tables for row in table.rows}.values())


def _budget(measure: Measure, track: Track) -> dict[str, Any]:
    """A measure with the values that a limit can be set to."""
    found = {measure.of(row) for table in track.tables for row in table.rows}
    values = sorted(value for value in found if value is not None)
    return {
        "key": measure.key,
        "label": measure.label,
        "title": measure.title,
        "values": values,
        "texts": [measure.write(value) for value in values],
    }


def _table(table: Table, measures: list[Measure], rankings: Sequence[Ranking]) -> dict[str, Any]:
    return {
        "key": table.key,
        "name": table.name,
        "backbone": table.backbone.name,
        "protocol": table.protocol_name,
        "unit": table.scale.unit,
        "higher_is_better": table.scale.higher_is_better,
        "measures": [measure.key for measure in measures],
        "columns": [
            {"key": column.key, "kind": column.kind, "label": column.label, "title": column.title, "group": group}
            for group, column in table.columns
        ],
        "rows": {row.key: _row(row, measures) for row in table.rows},
        "differences": [_differences(ranking) for ranking in rankings],
    }


def _differences(ranking: Ranking) -> dict[str, Any]:
    """Of all pairs of its rows: the ends of the intervals, of the row with the smaller index less the other."""
    pairs = ranking.pairs
    if isinstance(pairs, Withheld):
        return {"rows": list(ranking.rows), "withheld": pairs.reason}
    low, high = pairs.low.round(2).tolist(), pairs.high.round(2).tolist()
    return {
        "rows": list(pairs.methods),
        "low": [values[index + 1 :] for index, values in enumerate(low)],
        "high": [values[index + 1 :] for index, values in enumerate(high)],
        "method": pairs.method,
        "n": str(pairs.n),
    }


def _row(row: Row, measures: list[Measure]) -> dict[str, Any]:
    return {
        "method": row.method.name,
        "settings": [*row.differences, *row.badges],
        "label": row.label,
        "href": row.href,
        "family": row.method.family,
        "version": row.version,
        "tuned": row.budget.badge if row.budget else None,
        "budget": row.budget.slug if row.budget else None,
        "state": row.state,
        "rank": row.rank,
        "near_best": row.near_best,
        "ranks": row.ranks,
        "interval": [row.interval.low, row.interval.high] if row.interval else None,
        "coverage": [row.succeeded, row.attempted],
        "hardware": row.hardware,
        "measures": {measure.key: value for measure in measures if (value := measure.of(row)) is not None},
        "figures": {figure.column.key: _figure(figure) for figure in row.figures if figure.summary},
        "seeds": {} if row.budget else {name: cell.values for name, cell in row.cells.items()},
        "sampling": {} if row.budget else {name: sampling_of(cell) for name, cell in row.cells.items()},
    }


def _figure(figure: Figure) -> list[Any]:
    """Mean, standard deviation over seeds where there is one, number of seeds."""
    assert figure.summary is not None
    return [figure.summary.mean, figure.summary.std, figure.summary.n]

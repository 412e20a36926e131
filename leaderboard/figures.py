"""`write_figures`: trade-offs of a folder of records as figures for a paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import PeftmarkError
from .accuracy.measures import measures_of
from .accuracy.table import Board, Table
from .accuracy.tradeoffs import Tradeoff, first_column, rankings, tradeoff
from .contents import read_contents
from .drawings.tradeoffs import WIDTHS, write_figure
from .subjects import slug

KINDS = ("svg", "pdf", "png")


def write_figures(
    results: str | Path,
    out: str | Path,
    *,
    tables: Sequence[str] = (),
    x: str = "parameters",
    y: str = "",
    every_name: bool = False,
) -> Iterator[Path]:
    """Draw a figure for each ranking of each table, in each of `WIDTHS` and `KINDS`; files of other names are kept.

    Args:
        results: a folder of records, with their cards.
        out: the folder for the figures; made where it is not there.
        tables: keys of tables, or parts of their names; all by default.
        x: the key of a measure.
        y: the key of a column, by default that by which the table is ranked.
        every_name: names of all methods that have room, not of those on the front alone.

    Yields:
        The paths of what is written.

    Raises:
        PeftmarkError: where there are no records, nothing to draw, or no room to write.
    """
    results, out = Path(results), Path(out)
    charts = list(_charts(read_contents(results).board, tables, x, y))
    names = Counter(_name(chart) for chart in charts)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for chart in charts:
            name = _name(chart)
            stem = f"{name}-{chart.key}" if names[name] > 1 else name
            for width in WIDTHS:
                paths = [out / f"{stem}-{width}.{kind}" for kind in KINDS]
                write_figure(chart, width, paths, every_name)
                yield from paths
    except OSError as error:
        raise PeftmarkError(f"cannot write figures to {out} ({error.strerror}): name another with --out") from error


def _charts(board: Board, chosen: Sequence[str], x: str, y: str) -> list[Tradeoff]:
    known = {f"{track.title} · {table.name}": table for track in board.tracks for table in track.tables}
    tables = [table for track in board.tracks for table in track.tables]
    for text in chosen:
        if not any(_named(table, text, known) for table in tables):
            raise PeftmarkError(f"no table {text!r}: there are {'; '.join(known) or 'none'}")
    wanted = [table for table in tables if not chosen or any(_named(table, text, known) for text in chosen)]
    charts = []
    for table in wanted:
        columns = [first_column(table)] if not y else [column for _, column in table.columns if column.key == y]
        for budget, rows in rankings(table).items():
            measures = [measure for measure in measures_of(rows) if measure.key == x]
            charts += [tradeoff(table, budget, column, measure) for column in columns for measure in measures]
    charts = [chart for chart in charts if chart.points]
    if not charts:
        xs = sorted({measure.key for table in wanted for measure in measures_of(table.rows)})
        ys = sorted({column.key for table in wanted for _, column in table.columns if column.kind != "part"})
        raise PeftmarkError(
            f"nothing to draw: no ranked row has both. --x is one of {', '.join(xs) or 'none'}; "
            f"--y one of {', '.join(ys) or 'none'}"
        )
    return charts


def _named(table: Table, text: str, known: dict[str, Table]) -> bool:
    return text == table.key or any(text.lower() in name.lower() for name, each in known.items() if each is table)


def _name(chart: Tradeoff) -> str:
    """What tells a figure's files from others."""
    table = chart.table
    parts = [table.track, table.backbone.name, f"{table.protocol}-{table.protocol_version}", table.section]
    parts += [chart.column.key, chart.measure.key, "" if chart.budget is None else chart.ranking_words]
    return slug("-".join(part.replace(":", ".").replace(", ", "-").replace(" ", "-") for part in parts if part))

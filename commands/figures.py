"""``peftmark figures``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("figures")
@click.option("--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path), default=Path("figures"), show_default=True, metavar="DIR")
@click.option("--table", "tables", multiple=True, metavar="TEXT", help="Its key, or a part of its name; more than one.")
@click.option("--x", default="parameters", show_default=True, metavar="MEASURE", help="parameters, stored, memory, …")
@click.option("--y", default="", metavar="COLUMN", help="mean, group:NAME or task:NAME; by default what is ranked by.")
@click.option("--names", type=click.Choice(["front", "all"]), default="front", show_default=True)
def figures_command(results: Path, out: Path, tables: tuple[str, ...], x: str, y: str, names: str) -> None:
    """Draw trade-offs for a paper: a figure against a measure, its Pareto front; as SVG, PDF and PNG.

    Two widths are written, that of a column (3.3 in) and that of a page's text (6.9 in), for every ranking of every
    table, or of those that --table names.
    """
    from ..leaderboard import write_figures

    for path in write_figures(results, out, tables=tables, x=x, y=y, every_name=names == "all"):
        click.echo(path)

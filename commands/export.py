"""``peftmark export``."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path

import click

FORMATS = {
    "csv": ("leaderboard.export.tables", "write_csv"),
    "parquet": ("leaderboard.export.tables", "write_parquet"),
    "json": ("leaderboard.export.tables", "write_json"),
    "hub": ("leaderboard.export.hub", "write_model_cards"),
    "peft": ("benchmark.run.saved", "write_peft_folders"),
}
"""The functions that write a format: they take the results folder, run ids and where to, and return the paths."""


@click.command("export")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--format", "name", type=click.Choice(list(FORMATS)), required=True, help="See above.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="PATH", help="Where to; never overwritten."
)
@click.option("--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, metavar="DIR")
def export_command(runs: tuple[str, ...], name: str, out: Path, results: Path) -> None:
    """Write what others read, and print the paths.

    csv, parquet, json: what the board shows, as tables of runs, results and costs in a folder with a data dictionary;
    as one table where PATH is a file named after it, results.csv.

    hub: a Hugging Face model card of each RUN (the id that its record's file is named after), with its results and its
    record; nothing is uploaded.

    peft: the adapter of each RUN that was run with --save-adapters as a folder that Hugging Face PEFT loads: PATH of
    one run, PATH/RUN of several.
    """
    module, function = FORMATS[name]
    with warnings.catch_warnings(record=True, action="always", category=UserWarning) as notes:
        paths = getattr(import_module(f"..{module}", __package__), function)(results, runs, out)
    for note in notes:
        click.echo(f"peftmark: {note.message}", err=True)
    for path in paths:
        click.echo(path)

"""``peftmark board``."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("board")
@click.option("--results", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path), default=Path("board"), show_default=True, metavar="DIR")
def board_command(results: Path, out: Path) -> None:
    """Build the leaderboard from a folder of records and print its path."""
    from ..leaderboard import build_board

    click.echo(os.path.realpath(build_board(results, out, tell=lambda line: click.echo(line, err=True))))

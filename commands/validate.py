"""``peftmark validate``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import PeftmarkError

_LINE = 2000
"""Characters of a line: a record may hold a text of any length."""


@click.command("validate")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    metavar="RESULTS",
    help="Copy what is sound into this results folder; nothing there is overwritten.",
)
def validate_command(folder: Path, into: Path | None) -> None:
    """Check records that were made elsewhere, a line a problem, and merge them into a results folder.

    Exit status 1 where something is wrong or in conflict; what is sound is merged all the same.
    """
    from ..results import Store
    from ..results.validation import check_adapters, check_costs, check_predictions, check_runs, merge

    if not folder.is_dir():
        raise PeftmarkError(f"no results folder {folder}: name one that holds records")
    source = Store(folder)
    runs, costs = check_runs(source), check_costs(source)
    problems = [*runs.problems, *costs.problems]
    if not (runs.records or costs.records or problems):
        raise PeftmarkError(f"no records in {folder}: name a folder that holds some")
    sound = f"{len(runs.records)} runs and {len(costs.records)} cost records are sound"
    if into is None:
        problems += check_adapters(source, runs.records).problems
        problems += check_predictions(source, runs.records).problems
        summary = sound
    else:
        ours, theirs = (Path(os.path.realpath(each)) for each in (into, folder))
        if ours == theirs or ours in theirs.parents or theirs in ours.parents:
            raise PeftmarkError(f"--into {into}: it must not lie in {folder}, nor {folder} in it")
        target = Store(into)
        with target.lock():
            target.remove_temporary_files()
            merged = merge(source, target, runs, costs)
        problems += merged.problems
        copied = f"{merged.runs} runs, {merged.costs} cost records, {merged.adapters} adapters, "
        copied += f"{merged.predictions} files of predictions and {merged.cards} cards"
        summary = f"{sound}; copied {copied} into {into}, {merged.known} were there"
    for problem in problems:
        click.echo(problem if len(problem) <= _LINE else f"{problem[:_LINE]} …")
    click.echo(f"{summary}; {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
    if problems:
        raise SystemExit(1)

"""Runs as they end, on the terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .labels import label

if TYPE_CHECKING:
    from ..benchmark.launch.outcome import Options, Outcome
    from ..benchmark.plan.runs import Spec

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


class Patience:
    """A line on a terminal that counts, where something takes longer than a second."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + 1
        self._shown = 0

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next and sys.stderr.isatty():
            self._show(f"{self._what}: {done:,} of {total:,} runs")
            self._next = time.monotonic() + 0.1

    def __enter__(self) -> Patience:
        return self

    def __exit__(self, *of_error: object) -> None:
        if self._shown:
            self._show("")
            click.echo("\r", nl=False, err=True)

    def _show(self, line: str) -> None:
        click.echo("\r" + line.ljust(self._shown), nl=False, err=True)
        self._shown = len(line)


def carry_out(todo: list[Spec], options: Options, launcher: str = "local") -> Counter[str]:
    """Launch the runs, print a line for each that ends, and keep a progress bar below on a terminal."""
    counts: Counter[str] = Counter()
    if not todo:
        return counts
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..benchmark.launch.launchers import find_launcher

    console = Console(highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop the workers, keep the records
    outcomes = find_launcher(launcher)(todo, options)
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task(f"{min(options.jobs, len(todo))} workers", total=len(todo))
            for outcome in outcomes:
                counts[outcome.status] += 1
                number = f"[{sum(counts.values())}/{len(todo)}]"
                console.print(f"{number} {_line(outcome)}", markup=False)
                progress.advance(bar)
    except KeyboardInterrupt:
        outcomes.close()
        click.echo(
            f"interrupted: {sum(counts.values())} records are kept in {options.results}; "
            f"the same command goes on with the rest",
            err=True,
        )
        raise SystemExit(INTERRUPTED) from None
    return counts


def _line(outcome: Outcome) -> str:
    reason = f"  ({outcome.message})" if outcome.message else ""
    return f"{label(outcome.spec)}  {outcome.figure or outcome.status}  {outcome.seconds:.1f} s{reason}"


def summarize(counts: Counter[str], done: Counter[str], results: Path) -> None:
    ran = ", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "nothing to run"
    before = f"; {sum(done.values())} were finished before" if done else ""
    click.echo(f"{ran}{before}; records in {results}")
    if any(status not in ("ok", "unsupported") for status in counts):
        raise SystemExit(1)

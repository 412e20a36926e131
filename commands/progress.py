"""Runs as they end, on the terminal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from .labels import label

if TYPE_CHECKING:
    from ..benchmark.launch.outcome import Options, Outcome
    from ..benchmark.plan.runs import Spec

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody is looking; a stream that was closed before the start (``>&-``) is None."""
    return stream is not None and stream.isatty()


class Patience:
    """A line on a terminal that counts, where something takes longer than a second."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + 1
        self._shown = 0

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next and is_terminal(sys.stderr):
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


def say(line: str, err: bool = False) -> None:
    """Print a line. Where that fails nothing more is printed, and all goes on: runs are not for their lines alone.

    Nobody who stops reading (``| head -1``) has to be told; that a device is full is said once, on stderr.
    """
    try:
        click.echo(line, err=err)
    except OSError as error:
        _give_up(error, err)


def _give_up(error: OSError, err: bool) -> None:
    """Send a stream to nowhere, with what waits in its buffer."""
    stream = sys.stderr if err else sys.stdout
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
    if not err and not isinstance(error, BrokenPipeError):
        say(f"stdout cannot be written to ({error.strerror}): no more lines, but the runs go on", err=True)


def carry_out(todo: list[Spec], options: Options, launcher: str = "local") -> Counter[str]:
    """Launch the runs, print a line for each that ends, and keep a progress bar below on a terminal.

    Raises:
        PeftmarkError: where the results folder is not the one any more that this command holds.
    """
    counts: Counter[str] = Counter()
    if not todo:
        return counts

    from ..benchmark.launch.launchers import find_launcher
    from ..results.files import check_held

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop the workers, keep the records
    outcomes = find_launcher(launcher)(todo, options)
    try:
        with _bar(min(options.jobs, len(todo)), len(todo)) as tell:
            for outcome in outcomes:
                check_held(options.results)
                counts[outcome.status] += 1
                tell(f"[{sum(counts.values())}/{len(todo)}] {_line(outcome)}")
    except KeyboardInterrupt:
        outcomes.close()  # first: the workers may still be at work
        say(
            f"interrupted: {sum(counts.values())} records are kept in {options.results}; "
            f"the same command goes on with the rest",
            err=True,
        )
        raise SystemExit(INTERRUPTED) from None
    finally:
        outcomes.close()
    return counts


@contextmanager
def _bar(workers: int, total: int) -> Iterator[Callable[[str], None]]:
    """What prints a line above a progress bar and moves it on; elsewhere than on a terminal a line is all."""
    if not is_terminal(sys.stdout):
        yield say
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{workers} workers", total=total)

        def tell(line: str) -> None:
            try:
                console.print(line, markup=False)
            except OSError as error:
                _give_up(error, err=False)
            progress.advance(bar)

        yield tell


def _line(outcome: Outcome) -> str:
    reason = f"  ({outcome.message})" if outcome.message else ""
    return f"{label(outcome.spec)}  {outcome.figure or outcome.status}  {outcome.seconds:.1f} s{reason}"


def summarize(counts: Counter[str], done: Counter[str], results: Path) -> None:
    ran = ", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "nothing to run"
    before = f"; {sum(done.values())} were finished before" if done else ""
    say(f"{ran}{before}; records in {results}")
    if any(status not in ("ok", "unsupported") for status in counts):
        raise SystemExit(1)

"""The table of all runs: one file of data for a table that is searched, and pages of rows without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from ...results import RunRecord
from ...results.tuning import tuning_of
from ..formatting import figure
from .data import write_data

ROWS = 1000
"""Of a page without JavaScript."""


@dataclass(frozen=True)
class RunPage:
    """Some rows of the table."""

    number: int
    first: int
    """The place of its first row, counted from 1."""
    last: int
    rows: Markup

    @property
    def path(self) -> str:
        return address(self.number)


def address(number: int) -> str:
    """Of a page of the table, counted from 1."""
    return "runs.html" if number == 1 else f"runs/{number}.html"


def columns(searched: bool) -> list[tuple[str, bool]]:
    """Heads, and whether a column is of numbers; `searched` where there are runs of searches."""
    tuning, validation = ([("Trial", True)], [("Validation", True)]) if searched else ([], [])
    return [
        *(("Run", False), ("Method", False), ("Backbone", False), ("Task", False)),
        *tuning,
        *(("Seed", True), ("Status", False)),
        *validation,
        *(("Test", True), ("Created", False)),
    ]


def run_pages(
    records: Sequence[RunRecord], left_out: Mapping[str, str], searched: bool, digits: int, rows: int
) -> Iterator[RunPage]:
    """Pages of the table in the order of the records.

    Args:
        digits: of an id, which name the file that its record is in.
    """
    for number, start in enumerate(range(0, len(records), rows), 1):
        part = records[start : start + rows]
        root = "" if number == 1 else "../"
        text = "".join(_row(run, left_out.get(run.run_id), searched, root, digits) for run in part)
        yield RunPage(number, start + 1, start + len(part), Markup(text))


def _row(run: RunRecord, reason: str | None, searched: bool, root: str, digits: int) -> str:
    """One row, as text: a template takes ten times as long, and there may be a hundred thousand."""
    spec, run_id = run.spec, run.run_id
    tuning = tuning_of(spec)
    marks = "".join(
        f' <span class="badge" title="{escape(title)}">{badge}</span>' for badge, title in _marks(run, reason)
    )
    trial = validation = ""
    if searched:
        text = "" if tuning is None else f"{'' if spec.is_trial else 'tuned, '}{spec.trial}"
        trial = f'<td class="number">{text}</td>'
        validation = f'<td class="number">{figure(run.trial.validation) if run.trial else ""}</td>'
    why = f' title="{escape(run.error.message)}"' if run.error else ""
    test = figure(run.quality.test) if run.quality else "–"
    return (
        f'<tr><th scope="row"><a href="{root}run.html#{run_id}"><code>{run_id}</code></a>'
        f' <noscript><a href="{root}data/runs/{run_id[:digits]}.js">record</a></noscript></th>'
        f"<td>{escape(spec.method.name)}</td><td>{escape(spec.backbone.name)}</td><td>{escape(spec.task.name)}</td>"
        f'{trial}<td class="number">{spec.seed}</td>'
        f'<td{why}><span class="status status-{run.status}">{run.status}</span>{marks}</td>'
        f'{validation}<td class="number">{test}</td><td>{escape(_created(run))}</td></tr>\n'
    )


def _marks(run: RunRecord, reason: str | None) -> list[tuple[str, str]]:
    """Badges behind a status, with what they say to a pointer."""
    marks = [("left out", reason)] if reason else []
    if run.protocol_deviation or run.spec.protocol.overrides:
        marks.append(("faithful" if run.spec.protocol.faithful else "deviation", run.protocol_deviation or ""))
    return marks


def _created(run: RunRecord) -> str:
    return run.created[:16].replace("T", " ")


def write_run_table(records: Sequence[RunRecord], left_out: Mapping[str, str], searched: bool, path: Path) -> int:
    """Write the data of the table: `peftmark.runs`.

    A row is id, method, backbone, task, trial, seed, status, validation, test, created and note; method, backbone, task
    and status are places in the lists of them, a note is a place in the list of ``[error, [badge, title], …]``. A trial
    is its number, that of a run of what was chosen -1 - number, null where there is no search.

    Returns:
        Its bytes.
    """
    names: dict[str, dict[str, int]] = {kind: {} for kind in ("methods", "backbones", "tasks", "statuses")}
    notes: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {("", ()): 0}

    def place(kind: str, name: str) -> int:
        known = names[kind]
        return known.setdefault(name, len(known))

    rows = []
    for run in records:
        spec = run.spec
        trial = None if tuning_of(spec) is None else spec.trial if spec.is_trial else -1 - spec.trial
        note = run.error.message if run.error else "", tuple(_marks(run, left_out.get(run.run_id)))
        rows.append(
            (
                run.run_id,
                place("methods", spec.method.name),
                place("backbones", spec.backbone.name),
                place("tasks", spec.task.name),
                trial,
                spec.seed,
                place("statuses", run.status),
                round(run.trial.validation, 4) if run.trial else None,
                round(run.quality.test, 4) if run.quality else None,
                _created(run),
                notes.setdefault(note, len(notes)),
            )
        )
    lists = {kind: list(known) for kind, known in names.items()}
    told = [[message, *marks] for message, marks in notes]
    return write_data(path, {**lists, "notes": told, "searched": searched, "rows": rows}, "peftmark.runs")

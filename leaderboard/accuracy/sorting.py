"""Which runs stand in a table together, and which are left out.

- A table is of one track, backbone, protocol and unit; a task that is a benchmark by itself has its own.
- Runs on another version or split of a task than most are left out of the tables and said to be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ...results import RunRecord
from ..configurations import grouped
from ..subjects import Subjects
from .table import Scale


def section_of(run: RunRecord, subjects: Subjects) -> str:
    """The group of a task whose card says that it is a benchmark by itself; else nothing."""
    task = subjects.tasks[run.spec.task.name]
    return task.family if task.facts.get("own_table") is True else ""


def scales_of(runs: Sequence[RunRecord]) -> dict[str, Scale]:
    """What the figures of each task are measured in; percent where no run of it got so far."""
    known = {
        run.spec.task.name: Scale(run.quality.unit, run.quality.higher_is_better)
        for run in runs
        if run.quality is not None
    }
    return {run.spec.task.name: known.get(run.spec.task.name, Scale()) for run in runs}


def by_table(runs: Iterable[RunRecord], subjects: Subjects, scales: Mapping[str, Scale]) -> list[list[RunRecord]]:
    """One list per backbone, its weights and protocol, section, and what its figures are measured in.

    Runs from random weights share the table of the pretrained ones, to compare them with, where those are of one kind.
    """
    tables: list[list[RunRecord]] = []
    groups = grouped(
        runs,
        lambda run: (
            run.spec.backbone.name,
            run.spec.protocol.name,
            run.spec.protocol.version,
            section_of(run, subjects),
            scales[run.spec.task.name],
        ),
    )
    for _, group in sorted(groups.items()):
        weights = grouped(group, lambda run: run.spec.backbone.weights)
        if len(set(weights) - {"random"}) > 1:
            tables += [weights[key] for key in sorted(weights)]
        else:
            tables.append(group)
    return tables


def comparable(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], dict[str, str]]:
    """Drop what was measured on other data: older task versions, and for one seed other splits than the commonest."""
    newest: dict[str, int] = {}
    splits: defaultdict[tuple[str, int, int], Counter[str]] = defaultdict(Counter)
    for run in runs:
        task = run.spec.task
        newest[task.name] = max(task.version, newest.get(task.name, task.version))
        splits[task.name, task.version, run.spec.seed][task.split_sha256] += 1
    common = {key: min(counts, key=lambda split: (-counts[split], split)) for key, counts in splits.items()}
    kept, reasons = [], {}
    for run in runs:
        task = run.spec.task
        if task.version != newest[task.name]:
            reasons[run.run_id] = f"version {task.version} of {task.name}, which is at version {newest[task.name]}"
        elif task.split_sha256 != common[task.name, task.version, run.spec.seed]:
            reasons[run.run_id] = f"another split of {task.name} than most runs have"
        else:
            kept.append(run)
    return kept, reasons

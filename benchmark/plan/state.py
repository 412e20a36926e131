"""A plan held against a results folder: what is done, and what remains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ...errors import PeftmarkError
from ...results import FINISHED, CostSpec, Store, decode_cost, decode_record
from ...results.files import read_regular
from ...results.tuning import is_spent
from .runs import Spec


@dataclass(frozen=True)
class PlanState:
    """A plan held against a results folder."""

    todo: list[Spec]
    done: Counter[str]
    """Finished records by status."""
    damaged: list[Path]
    """Files under a planned record's name that are not it."""
    places: dict[str, Path]
    """Where the records that are to be made anew lie, by id; new ones go into the results folder itself."""


EXISTING = ("skip", "retry", "overwrite")


def plan_state(
    specs: Sequence[Spec], store: Store, existing: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> PlanState:
    """What of a plan a results folder holds, and what remains to be done.

    Args:
        progress: called now and then with how many runs were looked for, and of how many.
        existing: ``skip`` counts ok, unsupported, oom, diverged and timeout as finished, of a trial also what failed
            while it trained: it has cost a trial; ``retry`` only ok; ``overwrite`` nothing.
    """
    todo, damaged, places, done = [], [], {}, Counter[str]()
    paths = store.paths() | store.cost_paths()
    finished = {"skip": FINISHED, "retry": frozenset({"ok"}), "overwrite": frozenset[str]()}[existing]
    for number, spec in enumerate(specs):
        if number % 100 == 0:
            progress(number, len(specs))
        path = paths.get(spec.id)
        try:
            status, spent = _status(spec, path) if path else (None, False)
        except (PeftmarkError, OSError):
            damaged.append(cast(Path, path))
            path, status, spent = None, None, False
        if status is not None and (status in finished or (spent and existing == "skip")):
            done[status] += 1
        else:
            todo.append(spec)
            if path is not None:
                places[spec.id] = path
    return PlanState(todo, done, damaged, places)


def _status(spec: Spec, path: Path) -> tuple[str, bool]:
    """A record's status, and whether it is of a trial that failed once it trained.

    Raises:
        PeftmarkError: where the file does not hold the spec's record.
    """
    data, spent = read_regular(path), False
    if isinstance(spec, CostSpec):
        cost = decode_cost(data, path, spec)
        name, status = cost.cost_id, str(cost.status)
    else:
        run = decode_record(data, path, spec)
        name, status = run.run_id, str(run.status)
        spent = is_spent(run)
    if name != spec.id:
        raise PeftmarkError(f"{path} holds another record")
    return status, spent

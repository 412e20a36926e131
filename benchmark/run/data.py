"""Whether a task's data are those that a run was planned with."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import PeftmarkError
from ...results import TaskSpec
from ...tasks import Fingerprint, TaskData


def check_unchanged(task: TaskSpec, split_sha256: str, data: TaskData, prepared: Fingerprint | None) -> None:
    """A run's record names the planned split: its figures must be of that one.

    Args:
        split_sha256: of the split as it is now.
        prepared: what was there before the runs were launched; None where that is not known.

    Raises:
        PeftmarkError: where files are gone, were added or replaced since; it says which of these.
    """
    found = data.fingerprint() if prepared is not None else None
    if split_sha256 == task.split_sha256 and found == prepared:
        return
    changes = list(_changes(prepared or {}, found or {})) or ["files or classes have other names"]
    raise PeftmarkError(
        f"the data of {task.name} changed since the run was planned ({', '.join(changes)}): run the command again"
    )


def _changes(before: Fingerprint, now: Fingerprint) -> Iterator[str]:
    for split in sorted(before.keys() & now.keys(), reverse=True):
        (count, sha256), (left, other) = before[split], now[split]
        if left < count:
            yield f"of {count:,} {split} examples {count - left:,} are gone"
        elif left > count:
            yield f"{left - count:,} {split} examples were added to {count:,}"
        elif sha256 != other:
            yield f"{split} examples were replaced"

"""Records on disk, ``<results>/<run_id>.json`` and ``<results>/costs/<cost_id>.json``: written whole or not at all."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import filelock

from ..errors import PeftmarkError
from .cost import CostRecord, decode_cost
from .files import CARDS, hold, let_go, read_regular, remove_temporary, write_atomically
from .record import RunRecord, decode_record, encode_record

ADAPTERS = "adapters"
"""Sub-folder that ``--save-adapters`` fills with safetensors files."""

PREDICTIONS = "predictions"
"""Sub-folder of what was predicted of every example (see `predictions`)."""

COSTS = "costs"
"""Sub-folder of cost records."""

PERF = "perf"
"""Sub-folder of what ``make perf`` stores, which are no records."""

LAUNCH = ".launch"
"""Sub-folder of what launchers keep while their jobs are under way."""

Listing = tuple[Path, list[str]]

R = TypeVar("R")


class Store:
    """A results folder.

    Args:
        root: the folder; created on the first write. Records may lie in sub-folders (by suite).

    >>> import tempfile
    >>> from peftmark.results import BackboneSpec, Env, MethodSpec, ProtocolSpec, RunSpec, TaskSpec, Time
    >>> spec = RunSpec(
    ...     method=MethodSpec(name="lora", version=1, config={"rank": 8}),
    ...     backbone=BackboneSpec(name="embedded/vit", weights="random"),
    ...     task=TaskSpec(name="embedded/digits", version=1, split_sha256="0" * 64),
    ...     protocol=ProtocolSpec(name="embedded-v1", version=1),
    ... )
    >>> machine = {"hardware_class": "cpu", "device": "cpu", "torch": "2", "python": "3.11", "packages": {}}
    >>> env = Env(**machine, git_sha=None, dirty=None, threads=1)
    >>> made = {"schema_version": 1, "run_id": spec.run_id, "time_s": Time(), "env": env, "created": "2026-01-01"}
    >>> record = RunRecord(**made, spec=spec, status="timeout")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(folder)
    ...     with store.lock():  # one command at a time
    ...         path = store.write(record)
    ...     records, problems = store.load()
    >>> path.stem == spec.run_id, records == [record], problems
    (True, True, [])
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one command that writes to it, and to no other one that takes its place.

        Raises:
            PeftmarkError: where the folder cannot be written to, or another command holds it.
        """
        lock = filelock.FileLock(self.root / ".lock", timeout=0)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            hold(self.root)
        except filelock.Timeout as error:
            raise PeftmarkError(
                f"another peftmark command is writing to {self.root}: wait for it, or choose another with --results DIR"
            ) from error
        except OSError as error:
            raise PeftmarkError(
                f"cannot write to the results folder {self.root} ({error.strerror}): choose another with --results DIR"
            ) from error
        try:
            yield
        finally:
            let_go(self.root)
            lock.release()

    def remove_temporary_files(self) -> None:
        """Delete what a killed process was writing, and nothing else. Call it under the lock.

        Jobs that a killed command left behind write without it; while there may be some, nothing is deleted.
        """
        if any(self.root.glob(f"{LAUNCH}/*/job.json")):
            return
        for folder, names in folders(self.root, without=()):
            remove_temporary(folder, names)

    def paths(self) -> dict[str, Path]:
        """Files of runs by run id, from the folder and its sub-folders; the first of two, as in `load`."""
        return _by_id(self.run_files())

    def cost_paths(self) -> dict[str, Path]:
        """The same of cost records, by cost id."""
        return _by_id(self.cost_files())

    def write(self, record: RunRecord, at: Path | None = None) -> Path:
        """Write a record where the last one of its id lies (`paths` says it), by default in the folder itself.

        The folder is not listed: with 100,000 records that takes longer than a short run.
        """
        path = at or self.root / f"{record.run_id}.json"
        write_atomically(path, encode_record(record))
        return path

    def write_cost(self, record: CostRecord, at: Path | None = None) -> Path:
        """As `write`, by default among the folder's own costs."""
        path = at or self.root / COSTS / f"{record.cost_id}.json"
        write_atomically(path, encode_record(record))
        return path

    def load(self) -> tuple[list[RunRecord], list[str]]:
        """All records of runs, and one line for every file that is not one (a half-written or foreign file)."""
        records, problems = _decode(self.run_files(), decode_record)
        return _first(records, lambda record: record.run_id), problems

    def load_costs(self) -> tuple[list[CostRecord], list[str]]:
        """The same of cost records."""
        records, problems = _decode(self.cost_files(), decode_cost)
        return _first(records, lambda record: record.cost_id), problems

    def set_aside(self, path: Path) -> Path:
        """Rename a damaged record's file to ``….json.damaged``, so that a new one does not overwrite it."""
        names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
        aside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
        path.replace(aside)
        return aside

    def run_files(self) -> Iterator[Path]:
        """Files of runs, wherever below the folder they lie."""
        for folder, names in folders(self.root):
            yield from _records(folder, names)

    def cost_files(self) -> Iterator[Path]:
        """As `run_files`: those of the folder itself come first."""
        for folder, names in folders(self.root):
            if COSTS in names:
                yield from _records(folder / COSTS, listed(folder / COSTS))


def folders(
    root: Path, without: Collection[str] = frozenset({CARDS, ADAPTERS, PREDICTIONS, COSTS, PERF, LAUNCH})
) -> Iterator[Listing]:
    """A results folder and those below it where records may lie, each with the names of what is in it.

    Where a record lies twice, the first one counts, wherever it is looked for: a folder's own is before that of its
    sub-folders.
    """
    found: list[tuple[tuple[str, ...], list[str]]] = []
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        try:
            with os.scandir(os.path.join(root, *parts)) as entries:
                kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:  # not there, or not ours to read
            continue
        found.append((parts, list(kinds)))
        waiting += [(*parts, name) for name, is_folder in kinds.items() if is_folder and name not in without]
    for parts, names in sorted(found, key=lambda each: (len(each[0]), each[0])):
        yield root.joinpath(*parts), names


def files_below(root: Path, sub_folder: str, suffix: str) -> Iterator[Path]:
    """Files of all sub-folders of a name (``predictions``, ``cards/tasks``), in the order of `folders`.

    Not by `Path.rglob`, which calls itself for every level, and raises where a name is too long.
    """
    first = sub_folder.partition("/")[0]
    for folder, names in folders(root):
        if first in names:
            place = folder / sub_folder
            yield from (place / name for name in sorted(listed(place)) if name.endswith(suffix) and name[0] != ".")


def listed(folder: Path) -> list[str]:
    """The names of what is in a folder; of none where it is none."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _records(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    return (folder / name for name in sorted(names) if name.endswith(".json") and not name.startswith("."))


def _by_id(files: Iterable[Path]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in files:
        paths.setdefault(path.stem, path)
    return paths


def _decode(files: Iterable[Path], decode: Callable[[bytes, Path], R]) -> tuple[list[R], list[str]]:
    """What can be decoded, and one line for every file that cannot."""
    records, problems = [], []
    with no_garbage_collection():
        for path in files:
            try:
                records.append(decode(read_regular(path), path))
            except PeftmarkError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(f"{path} cannot be read ({error.strerror})")
    return records, problems


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Records hold no cycles: to look for some among ever more of them takes three times as long as decoding."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _first(records: Iterable[R], name: Callable[[R], str]) -> list[R]:
    """The first of those that have the same name."""
    found: dict[str, R] = {}
    for record in records:
        found.setdefault(name(record), record)
    return list(found.values())

"""Records from elsewhere: what is wrong with them, and how they are merged into a results folder.

A schema says what a record looks like (`decode_record`); here is what else must hold of one that nobody here has seen
being made. Nothing that is there already is overwritten.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..errors import PeftmarkError
from .cards import KINDS, Card, card_path, read_card, write_card
from .cost import CostRecord, decode_cost
from .files import CARDS, holds, read_regular, write_atomically
from .predictions import predictions_file, predictions_problems, same_predictions
from .record import RunRecord, TrialFigure, TuningSpec, decode_record
from .store import ADAPTERS, COSTS, PREDICTIONS, Store, files_below
from .tuning import finds_its_own, number_of_trials, tuning_of

_SHA256 = re.compile(r"[0-9a-f]{64}")

R = TypeVar("R", RunRecord, CostRecord)


@dataclass
class Checked(Generic[R]):
    """Records of one kind that have nothing wrong with them, with their files, and a line for each problem."""

    records: dict[str, tuple[R, Path]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class Merged:
    """What was, or would be, done to the folder that records are merged into."""

    runs: int = 0
    costs: int = 0
    adapters: int = 0
    predictions: int = 0
    cards: int = 0
    known: int = 0
    """Records that are there already, byte for byte or in all that counts."""
    problems: list[str] = field(default_factory=list)


def check_runs(store: Store) -> Checked[RunRecord]:
    """All records of runs below a folder."""
    return _check(store.run_files(), decode_record, run_problems)


def check_costs(store: Store) -> Checked[CostRecord]:
    """All cost records below a folder."""
    return _check(store.cost_files(), decode_cost, cost_problems)


def _check(
    files: Iterator[Path], decode: Callable[[bytes, Path], R], find_problems: Callable[[R], Iterator[str]]
) -> Checked[R]:
    checked = Checked[R]()
    for path in files:
        try:
            data = read_regular(path)
            record = decode(data, path)
            check_keys(data, path)
        except PeftmarkError as error:
            checked.problems.append(str(error))
            continue
        except OSError as error:
            checked.problems.append(f"{path} cannot be read ({error.strerror})")
            continue
        name = record.spec.id
        found = list(find_problems(record))
        if path.stem != name:
            found.append(f"its name is not its id: rename it to {name}.json")
        if name in checked.records:
            earlier, there = checked.records[name]
            same = "the same record" if earlier == record else "another record of the same spec"
            found.append(f"{there} holds {same}: delete one of the two")
        checked.problems += [f"{path}: {problem}" for problem in found]
        if not found:
            checked.records[name] = (record, path)
    return checked


def check_keys(data: bytes, source: Path) -> None:
    """Raises PeftmarkError where a key is there twice: one of its values is seen by nobody."""

    def seen(pairs: list[tuple[str, Any]]) -> None:
        keys = Counter(key for key, _ in pairs)
        if len(keys) < len(pairs):
            raise PeftmarkError(f"{source} is not a record: the key {keys.most_common(1)[0][0]!r} is there twice")

    try:
        json.loads(data, object_pairs_hook=seen)
    except (ValueError, RecursionError) as error:  # what a second key of the same name hides has been read by nobody
        raise PeftmarkError(f"{source} is not a record: {error}") from error


def run_problems(record: RunRecord) -> Iterator[str]:
    """What cannot be true of the record of a run."""
    spec = record.spec
    if not _SHA256.fullmatch(spec.task.split_sha256):
        yield f"the split's hash {spec.task.split_sha256!r} is no sha256"
    if spec.backbone.weights != "random" and not _SHA256.fullmatch(spec.backbone.weights):
        yield f"the weights' hash {spec.backbone.weights!r} is no sha256"
    if spec.seed < 0 or spec.trial < 0:
        yield "seed and trial must not be negative"
    if spec.protocol.overrides and not record.protocol_deviation:
        yield "its protocol was changed, and it does not say so (protocol_deviation)"
    yield from _common_problems(record)
    if record.env.data_sha256 is not None and not _SHA256.fullmatch(record.env.data_sha256):
        yield f"the data's hash {record.env.data_sha256!r} is no sha256"
    tuning = tuning_of(spec)
    if tuning is not None:
        yield from _tuning_problems(tuning, spec.trial)
    quality = record.quality
    if record.trial is not None:
        yield from _trial_problems(record, record.trial)
    if quality is None:
        return
    if tuning is not None and quality.validation is not None:
        yield "what a search chose trains on the validation data: a figure on these says nothing"
    if record.params is None or record.storage is None:
        yield "a record of status ok has params and storage"
    if not _SHA256.fullmatch(quality.predictions_sha256):
        yield f"the predictions' hash {quality.predictions_sha256!r} is no sha256"
    figures = {"test": quality.test, "validation": quality.validation}
    figures |= {f"tests.{name}": figure.value for name, figure in quality.tests.items()}
    for variant in quality.variants:
        figures |= {f"{variant.axis} {variant.value}": variant.test}
        figures |= {f"validation of {variant.axis} {variant.value}": variant.validation}
    for name, value in figures.items():
        if quality.unit == "percent" and value is not None and not 0 <= value <= 100:
            yield f"{name} is {value}, which is no percentage"
    if not quality.tests or any(figure.n < 1 for figure in quality.tests.values()):
        yield "tests need at least one figure, each of at least one example"
    elif quality.n_test != sum(figure.n for figure in quality.tests.values()):
        yield f"n_test is {quality.n_test}, but its tests have {sum(f.n for f in quality.tests.values())} examples"


def _tuning_problems(tuning: TuningSpec, trial: int) -> Iterator[str]:
    """What cannot be true of a search."""
    if min(tuning.trials, tuning.studies) < 1 or tuning.trials % tuning.studies:
        yield f"{tuning.trials} trials cannot be dealt evenly into {tuning.studies} studies"
    elif not finds_its_own(tuning) and trial >= number_of_trials(tuning.trials, tuning.studies):
        yield f"a search of {tuning.trials} trials in {tuning.studies} studies has no trial {trial}"
    elif tuning.study is not None and not 0 <= tuning.study < tuning.studies:
        yield f"there is no study {tuning.study} of {tuning.studies}"
    elif tuning.study is not None and (trial < 1 or (trial - 1) % tuning.studies != tuning.study):
        yield f"trial {trial} is none of study {tuning.study} of {tuning.studies}"
    if not (math.isfinite(tuning.learning_rate) and tuning.learning_rate > 0):
        yield f"the learning rate is {tuning.learning_rate}"
    if tuning.points_sha256 is not None and not _SHA256.fullmatch(tuning.points_sha256):
        yield f"the points' hash {tuning.points_sha256!r} is no sha256"


def _trial_problems(record: RunRecord, trial: TrialFigure) -> Iterator[str]:
    """What cannot be true of a trial that came to its end."""
    if record.params is None or record.storage is None:
        yield "a record of status ok has params and storage"
    if not _SHA256.fullmatch(trial.predictions_sha256):
        yield f"the predictions' hash {trial.predictions_sha256!r} is no sha256"
    if trial.unit == "percent" and not 0 <= trial.validation <= 100:
        yield f"validation is {trial.validation}, which is no percentage"


def cost_problems(record: CostRecord) -> Iterator[str]:
    """What cannot be true of a cost record."""
    spec = record.spec
    if min(spec.input_shape) < 1 or spec.num_classes < 1 or spec.batch_size < 1:
        yield "input shape, classes and batch size must be at least 1"
    yield from _common_problems(record)
    if record.memory is not None:
        for name, memory in (("estimated", record.memory.estimated), ("measured", record.memory.measured)):
            if memory is not None and min(memory.train_peak_allocated_bytes, memory.eval_peak_allocated_bytes) < 0:
                yield f"{name} memory is negative"
        if record.memory.measured is not None and spec.hardware_class is None:
            yield "memory was measured, but the spec names no hardware class"
    if record.speed is not None:
        if spec.hardware_class is None:
            yield "speed was measured, but the spec names no hardware class"
        times = (record.speed.train_step_ms.median, record.speed.train_images_per_s)
        if not all(math.isfinite(time) and time > 0 for time in times):
            yield "times must be above zero"


def _common_problems(record: RunRecord | CostRecord) -> Iterator[str]:
    if (record.status == "ok") == (record.error is not None):
        yield "a record has an error if and only if its status is not ok"
    params = record.params
    if params is not None:
        if not 0 <= params.trainable_without_head <= params.trainable <= params.total:
            yield "parameters must be: 0 ≤ trainable without head ≤ trainable ≤ total"
        if params.stored < 0 or params.added_at_inference < 0:
            yield "parameter counts must not be negative"
    if record.storage is not None and record.storage.adapter_bytes < 0:
        yield "adapter_bytes must not be negative"
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        yield f"created is {record.created!r}, which is no time (ISO 8601)"
    else:
        if created.tzinfo is None:
            yield f"created is {record.created!r}, which has no time zone (UTC is +00:00)"


def check_adapters(store: Store, runs: Mapping[str, tuple[RunRecord, Path]]) -> Checked[RunRecord]:
    """Files of saved adapters: `records` has those that belong to a sound record and are as long as it says."""
    checked = Checked[RunRecord]()
    for path in files_below(store.root, ADAPTERS, ".safetensors"):
        known = runs.get(path.stem)
        size = _size(path)
        if known is None:
            checked.problems.append(f"{path}: there is no sound record {path.stem}.json that it belongs to")
        elif size is None:
            checked.problems.append(f"{path}: it is no file")
        elif known[0].storage is None or size != known[0].storage.adapter_bytes:
            checked.problems.append(f"{path}: it has {size} bytes, its record says otherwise")
        else:
            checked.records[path.stem] = (known[0], path)
    return checked


def _size(path: Path) -> int | None:
    """Of a regular file; None where it is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def check_predictions(store: Store, runs: Mapping[str, tuple[RunRecord, Path]]) -> Checked[RunRecord]:
    """Files of predictions: `records` has those that are what a sound record beside them says."""
    checked = Checked[RunRecord]()
    for path in files_below(store.root, PREDICTIONS, ".npz"):
        record, place = runs.get(path.stem, (None, None))
        if record is None or place is None or predictions_file(place) != path:
            checked.problems.append(f"{path}: there is no sound record {path.stem}.json that it belongs to")
            continue
        problems = list(predictions_problems(record, path))
        checked.problems += problems
        if not problems:
            checked.records[path.stem] = (record, path)
    return checked


def merge(source: Store, into: Store, runs: Checked[RunRecord], costs: Checked[CostRecord]) -> Merged:
    """Copy sound records, their adapters, predictions and cards; call it under the lock of `into`.

    What `into` has already stays as it is: an equal record is counted as known, another one of the same spec is a
    problem that a person must settle.
    """
    merged = Merged()
    merged.runs, places = _merge_records(runs, check_runs(into), into.root, merged)
    merged.costs, _ = _merge_records(costs, check_costs(into), into.root / COSTS, merged)
    adapters = check_adapters(source, runs.records)
    merged.problems += adapters.problems
    for name, (_, path) in adapters.records.items():
        target = into.root / ADAPTERS / path.name
        if not os.path.lexists(target):
            merged.adapters += _copied(path, target, merged)
        elif not _same(path, target):
            merged.problems.append(f"{path}: {target} is another adapter of run {name}; it is kept")
    _merge_predictions(check_predictions(source, runs.records), places, merged)
    _merge_cards(source.root, into.root, merged)
    return merged


def _merge_predictions(theirs: Checked[RunRecord], places: Mapping[str, Path], merged: Merged) -> None:
    """Those of records that are the same here and there, where there are none.

    Args:
        places: where these records lie here.
    """
    merged.problems += theirs.problems
    for name, (_, path) in theirs.records.items():
        if name not in places:
            continue
        target = predictions_file(places[name])
        if not os.path.lexists(target):
            merged.predictions += _copied(path, target, merged)
        elif not same_predictions(path, target):
            merged.problems.append(f"{path}: {target} has other predictions of run {name}; it is kept")


def _merge_records(theirs: Checked[R], ours: Checked[R], folder: Path, merged: Merged) -> tuple[int, dict[str, Path]]:
    """How many were copied, and where those lie now that are the same here and there."""
    copied, places = 0, dict[str, Path]()
    for name, (record, path) in theirs.records.items():
        target = folder / f"{name}.json"
        if name in ours.records:
            mine, there = ours.records[name]
            if mine == record:
                merged.known += 1
                places[name] = there
            else:
                merged.problems.append(
                    f"{path}: {there} is another record of the same spec ({_differ(mine, record)}); it is kept"
                )
        elif os.path.lexists(target):
            merged.problems.append(f"{path}: {target} is there and is not sound; it is kept")
        elif _copied(path, target, merged):
            copied += 1
            places[name] = target
    return copied, places


def _copied(path: Path, target: Path, merged: Merged) -> bool:
    """Copy what was found to be sound; where that is not possible any more it is a problem."""
    try:
        write_atomically(target, read_regular(path, sys.maxsize))
    except OSError as error:
        merged.problems.append(f"{path}: it cannot be copied to {target} ({error.strerror})")
        return False
    return True


def _same(one: Path, other: Path) -> bool:
    """Whether both are files of the same bytes."""
    try:
        return holds(other, read_regular(one, sys.maxsize))
    except OSError:
        return False


def _differ(mine: RunRecord | CostRecord, theirs: RunRecord | CostRecord) -> str:
    """In what two records of one spec differ, as far as it matters most."""
    if mine.status != theirs.status:
        return f"{mine.status}, not {theirs.status}"
    if isinstance(mine, RunRecord) and isinstance(theirs, RunRecord) and mine.quality and theirs.quality:
        if mine.quality.test != theirs.quality.test:
            return f"test {mine.quality.test:.2f}, not {theirs.quality.test:.2f}"
        if mine.quality.predictions_sha256 == theirs.quality.predictions_sha256:
            return f"with the same predictions, made {mine.created}, not {theirs.created}"
    return f"made {mine.created}, not {theirs.created}"


def _merge_cards(source: Path, into: Path, merged: Merged) -> None:
    """Cards that are not there; one that is stays, whatever the other says: a run here writes it anew."""
    for kind in KINDS:
        for path in files_below(source, f"{CARDS}/{kind}", ".json"):
            card = read_card(path)
            target = into / CARDS / kind / path.name
            if card is None or card_path(source, kind, card.name).name != path.name:
                merged.problems.append(f"{path} is not the card that its name says")
            elif os.path.lexists(target):
                continue
            elif os.path.lexists(target.with_suffix(".png")):
                merged.problems.append(f"{path}: {target.with_suffix('.png')} is there without its card; it is kept")
            else:
                write_card(into, kind, card, _picture(path, card))
                merged.cards += 1


def _picture(path: Path, card: Card) -> bytes | None:
    """The PNG beside a card, if it is one: a card is not trusted to name any file it likes."""
    picture = path.with_suffix(".png")
    if card.picture != picture.name:
        return None
    try:
        data = read_regular(picture)
    except OSError:
        return None
    return data if data.startswith(b"\x89PNG\r\n\x1a\n") else None

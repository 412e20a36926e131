"""What stored predictions tell of single test examples: which are hard, and whether rows know how sure they may be.

Of tasks with one label an example, and of ranked rows. Each file of predictions is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import PeftmarkError
from ...results.predictions import PREDICTED, read_predictions
from ...results.statistics import Calibration, calibration_of
from ..configurations import grouped
from .standings import OnTask
from .table import Row, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN = 20
"""Of the hardest examples."""

BARS = 10

_TARGET, _OF_TRUE, _OF_PREDICTED = "target", "probability_true", "probability_max"


@dataclass(frozen=True)
class HardExample:
    split: str
    index: int
    """From 0, in the split's order."""
    label: int
    right: float
    """The share of rows that get it right; a row of several runs counts by the share of these."""
    probability: float | None
    """Of the true label: the mean over rows, where all kept it."""


@dataclass(frozen=True)
class Hardness:
    """How many rows get each test example of a task right."""

    rows: int
    examples: int
    hardest: tuple[HardExample, ...]
    histogram: tuple[int, ...]
    """Examples by the share of rows that get them right, in `BARS` steps; the last holds those that all get."""
    unsolved: int
    """That no row gets."""


@dataclass(frozen=True)
class Dot:
    """All examples of one step of confidence."""

    confidence: float
    accuracy: float
    share: float
    """Of all examples."""


@dataclass(frozen=True)
class RowCalibration:
    """Of a row: means over its tests, which are a task's split and a seed each; in percentage points."""

    table: Table
    row: Row
    error: float
    by_chance: float
    """What a model that is right as often as it says would have."""
    tests: int
    curve: tuple[Dot, ...]
    """Over the examples of all tests."""


@dataclass(frozen=True)
class Examples:
    hardness: Mapping[tuple[str, str], Hardness]
    """By the key of a table and a task."""
    calibrations: Mapping[str, RowCalibration]
    """By the key of a row."""
    problems: tuple[str, ...]
    """Files that are no predictions."""


@dataclass(frozen=True, eq=False)
class _Test:
    """One run's predictions of all splits, one behind the other."""

    examples: tuple[tuple[str, int], ...]
    """Split and index."""
    target: NDArray[Any]
    right: NDArray[np.bool_]
    probability: NDArray[Any] | None


def read_examples(tables: Iterable[tuple[str, OnTask]], files: Mapping[str, Path]) -> Examples:
    """
    Args:
        tables: tasks, each with a table's rows on it. files: of predictions, by run id.
    """
    hardness, problems = {}, []
    calibrations: dict[str, list[Calibration]] = {}
    rows: dict[str, tuple[Table, Row]] = {}
    for task, of_table in tables if files else ():
        by_row: list[list[_Test]] = []
        for standing in of_table.standings:
            if standing.rank is None:
                continue
            row, tests = standing.row, []
            for run in row.cells[task].runs:
                if run.quality is None or run.run_id not in files:
                    continue
                try:
                    splits = dict(_labels(read_predictions(files[run.run_id])))
                except PeftmarkError as error:
                    problems.append(str(error))
                    continue
                tests += [_test(splits)] if splits else []
                for arrays in splits.values():
                    if _OF_PREDICTED in arrays:
                        rows[row.key] = (of_table.table, row)
                        found = calibration_of(arrays[PREDICTED] == arrays[_TARGET], arrays[_OF_PREDICTED])
                        calibrations.setdefault(row.key, []).append(found)
            by_row += [tests] if tests else []
        if by_row:
            hardness[of_table.table.key, task] = _hardness(by_row)
    of_rows = {key: _calibration(*rows[key], found) for key, found in calibrations.items()}
    return Examples(hardness, of_rows, tuple(sorted(set(problems))))


def _labels(predictions: Mapping[str, Mapping[str, NDArray[Any]]]) -> Iterator[tuple[str, Mapping[str, NDArray[Any]]]]:
    """The splits whose predictions are one label an example."""
    for split, arrays in sorted(predictions.items()):
        predicted, target = arrays.get(PREDICTED), arrays.get(_TARGET)
        if predicted is None or target is None or predicted.shape != target.shape or target.ndim != 1:
            continue
        if predicted.dtype.kind not in "iu" or target.dtype.kind not in "iu" or not len(target):
            continue
        kept = {name: arrays[name] for name in (_OF_TRUE, _OF_PREDICTED) if name in arrays}
        if all(_probabilities(values) for values in kept.values()):
            yield split, {PREDICTED: predicted, _TARGET: target, **kept}


def _probabilities(values: NDArray[Any]) -> bool:
    return values.ndim == 1 and values.dtype.kind == "f" and bool(((values >= 0) & (values <= 1)).all())


def _test(splits: Mapping[str, Mapping[str, NDArray[Any]]]) -> _Test:
    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([arrays[name] for arrays in splits.values()])

    examples = tuple((split, index) for split, arrays in splits.items() for index in range(len(arrays[_TARGET])))
    target = joined(_TARGET)
    known = all(_OF_TRUE in arrays for arrays in splits.values())
    return _Test(examples, target, joined(PREDICTED) == target, joined(_OF_TRUE) if known else None)


def _hardness(by_row: list[list[_Test]]) -> Hardness:
    """Over the test examples that most runs have: those of other examples are left out."""
    same = grouped((test for tests in by_row for test in tests), lambda test: (test.examples, test.target.tobytes()))
    chosen = max(same.values(), key=len)
    counted = [[test for test in tests if test in chosen] for tests in by_row]
    right = np.mean([np.mean([test.right for test in tests], axis=0) for tests in counted if tests], axis=0)
    probabilities = [[test.probability for test in tests if test.probability is not None] for tests in counted if tests]
    known = all(len(found) == len(tests) for found, tests in zip(probabilities, filter(None, counted), strict=True))
    probability = np.zeros(len(right))
    if known:
        probability = np.mean([np.mean(found, axis=0, dtype=np.float64) for found in probabilities], axis=0)
    order = np.lexsort((probability, right))[:SHOWN]  # by the last key first; stable
    hardest = []
    for place in order:
        split, index = chosen[0].examples[place]
        its = float(probability[place]) if known else None
        hardest.append(HardExample(split, index, int(chosen[0].target[place]), float(right[place]), its))
    steps = np.minimum((right * BARS + 1e-9).astype(int), BARS - 1)
    histogram = tuple(int(count) for count in np.bincount(steps, minlength=BARS))
    return Hardness(sum(map(bool, counted)), len(right), tuple(hardest), histogram, int((right == 0).sum()))


def _calibration(table: Table, row: Row, tests: list[Calibration]) -> RowCalibration:
    total = sum(each.n for test in tests for each in test.bins)
    curve = []
    for bins in zip(*(test.bins for test in tests), strict=True):
        filled = [each for each in bins if each.n]
        n = sum(each.n for each in filled)
        if n:
            confidence = sum(each.n * (each.confidence or 0.0) for each in filled) / n
            curve.append(Dot(confidence, sum(each.n * (each.accuracy or 0.0) for each in filled) / n, n / total))
    error, by_chance = (float(np.mean([getattr(test, name) for test in tests])) for name in ("error", "by_chance"))
    return RowCalibration(table, row, error, by_chance, len(tests), tuple(curve))

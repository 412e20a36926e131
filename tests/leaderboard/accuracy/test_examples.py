"""What stored predictions tell of test examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest

from peftmark.leaderboard.accuracy.examples import Examples, read_examples
from peftmark.leaderboard.accuracy.standings import on_tasks
from peftmark.results.predictions import predictions_file, write_predictions
from peftmark.results.statistics import calibration_of

if TYPE_CHECKING:
    from peftmark.results import RunRecord

    from ..conftest import Results

TARGET = [0, 1, 2, 3]
T = TypeVar("T")


def keep(
    results: Results,
    run: RunRecord,
    predicted: Sequence[int],
    target: Sequence[int] = TARGET,
    sure: float | Sequence[float] | None = 0.5,
    true: float = 0.25,
) -> None:
    arrays = {"predicted": np.array(predicted), "target": np.array(target)}
    if sure is not None:
        arrays["probability_max"] = np.broadcast_to(np.array(sure, dtype=np.float32), len(target))
        arrays["probability_true"] = np.full(len(target), true, dtype=np.float32)
    write_predictions(predictions_file(results.root / f"{run.run_id}.json"), {"test": arrays})


def read(results: Results) -> Examples:
    files = {path.stem: path for path in (results.root / "predictions").glob("*.npz")}
    tables = ((task, each) for task, found in on_tasks(results.board()).items() for each in found)
    return read_examples(tables, files)


def only(found: Mapping[Any, T]) -> T:
    [value] = found.values()
    return value


def test_the_hardest_examples_are_those_that_fewest_rows_get_right(results: Results) -> None:
    keep(results, results.run("one", "vtab/a", 50.0, seed=0), [0, 1, 0, 0])
    keep(results, results.run("one", "vtab/a", 50.0, seed=1), [0, 0, 0, 3])
    keep(results, results.run("other", "vtab/a", 75.0, seed=0), [0, 1, 0, 3])
    found = only(read(results).hardness)
    assert [(each.index, each.label, each.right, each.probability) for each in found.hardest] == [
        (2, 2, 0.0, 0.25), (1, 1, 0.75, 0.25), (3, 3, 0.75, 0.25), (0, 0, 1.0, 0.25),
    ]  # fmt: skip
    assert (found.rows, found.examples, found.unsolved) == (2, 4, 1)
    assert found.histogram == (1, 0, 0, 0, 0, 0, 0, 2, 0, 1)


def test_equals_go_by_the_probability_of_their_label(results: Results) -> None:
    run = results.run("one", "vtab/a", 0.0)
    arrays = {
        "predicted": np.array([1, 1, 1]),
        "target": np.array([0, 0, 0]),
        "probability_true": np.array([0.3, 0.1, 0.2], dtype=np.float32),
    }
    write_predictions(predictions_file(results.root / f"{run.run_id}.json"), {"test": arrays})
    assert [each.index for each in only(read(results).hardness).hardest] == [1, 2, 0]
    assert read(results).calibrations == {}  # without the predicted label's


def test_only_ranked_rows_on_the_same_examples_count(results: Results) -> None:
    keep(results, results.run("one", "vtab/a", 25.0), [0, 0, 0, 0], sure=None)
    keep(results, results.run("more", "vtab/a", 25.0), [0, 0, 0, 0], sure=None)
    keep(results, results.run("other", "vtab/a", 50.0), [3, 2, 1, 0], target=[3, 2, 1, 0])
    keep(results, results.run("one", "vtab/a", 99.0, overrides={"epochs": 2}), TARGET)
    found = only(read(results).hardness)
    assert (found.rows, [each.right for each in found.hardest]) == (2, [0.0, 0.0, 0.0, 1.0])
    assert {each.probability for each in found.hardest} == {None}


def test_calibration_is_the_mean_over_tests(results: Results) -> None:
    keep(results, results.run("one", "vtab/a", 50.0, seed=0), [0, 1, 0, 0], sure=0.9)
    keep(results, results.run("one", "vtab/a", 50.0, seed=1), TARGET, sure=1.0)
    keep(results, results.run("one", "vtab/b", 50.0, seed=0), [0, 0, 0, 0], sure=[0.9, 0.9, 0.3, 0.3])
    found = only(read(results).calibrations)
    tests = [
        calibration_of([1, 1, 0, 0], [np.float32(0.9)] * 4),
        calibration_of([1] * 4, [1.0] * 4),
        calibration_of([1, 0, 0, 0], np.array([0.9, 0.9, 0.3, 0.3], dtype=np.float32)),
    ]
    assert found.error == pytest.approx((40 + 0 + 35) / 3, abs=1e-4)
    assert found.error == pytest.approx(np.mean([test.error for test in tests]))
    assert found.by_chance == pytest.approx(np.mean([test.by_chance for test in tests]))
    assert (found.tests, found.row.label) == (3, "one")
    curve = [(round(dot.confidence, 3), dot.accuracy, round(dot.share, 3)) for dot in found.curve]
    assert curve == [(0.3, 0.0, 0.167), (0.9, 0.5, 0.5), (1.0, 1.0, 0.333)]


def test_what_is_no_label_or_no_file_of_predictions(results: Results) -> None:
    run, other = results.run("one", "vtab/a", 50.0), results.run("other", "vtab/a", 50.0)
    boxes = {"predicted": np.zeros((4, 2)), "target": np.zeros((4, 2))}
    write_predictions(predictions_file(results.root / f"{run.run_id}.json"), {"test": boxes})
    predictions_file(results.root / f"{other.run_id}.json").write_text("<script>")
    found = read(results)
    assert found.hardness == {} and found.calibrations == {}
    [problem] = found.problems
    assert f"{other.run_id}.npz holds no predictions" in problem


def test_without_files_nothing_is_read(results: Results) -> None:
    results.run("one", "vtab/a", 50.0)
    tables = [(task, each) for task, found in on_tasks(results.board()).items() for each in found]
    assert read_examples(tables, {}) == Examples({}, {}, ())

"""`tools.many_records` makes what the harness could have written, the same from the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftmark.results import Store
from peftmark.results.validation import check_costs, check_predictions, check_runs
from peftmark.tools.many_records import EXAMPLES, write_many


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_records_are_sound_and_the_same_again(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        write_many(tmp_path / name, 1500, seed=seed, epochs=3, searches=2, predictions=3)
    store = Store(tmp_path / "one")
    runs, costs = check_runs(store), check_costs(store)
    predictions = check_predictions(store, runs.records)
    assert runs.problems + costs.problems + predictions.problems == []
    assert (len(runs.records), len(predictions.records)) == (1500, 3)
    records = [record for record, _ in runs.records.values()]
    assert {"ok", "oom", "diverged"} <= {record.status for record in records}
    assert {record.spec.seed for record in records} == {0, 1, 2, 3, 4}
    assert sum(record.spec.is_trial for record in records) == 26
    assert len(costs.records) == 4 * len({record.spec.method.canonical for record in records if not record.spec.tuning})
    assert all(record.quality is None or len(record.quality.curve) == 3 for record in records)
    figures = [record.quality for record in records if record.quality]
    assert all(figure.n_test == EXAMPLES and figure.test == round(figure.test, 1) for figure in figures)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


@pytest.mark.parametrize("n", [1, 20, 21])
def test_as_many_as_are_asked_for(tmp_path: Path, n: int) -> None:
    write_many(tmp_path, n, searches=1)
    assert len(Store(tmp_path).load()[0]) == n

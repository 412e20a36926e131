"""What the board says of how sure a ranking is: values on figures whose truth is plain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from peftmark.leaderboard.statistics.uncertainty import is_share, uncertainty_of
from peftmark.results.statistics import Interval, Withheld

if TYPE_CHECKING:
    from ..conftest import Results

TASKS = tuple(f"vtab/{letter}" for letter in "abcdef")


def rows_of(results: Results, **offsets: float) -> None:
    """Methods that differ by a constant and a noise of seeds and tasks that is far smaller, or by nothing."""
    for name, offset in offsets.items():
        for place, task in enumerate(TASKS):
            for seed in (0, 1, 2):
                noise = 0.2 * ((place + 2 * seed + len(name)) % 3)
                results.run(name, task, 40.0 + 5 * place + offset + noise, seed=seed)


def test_rows_within_noise_of_the_best_are_marked(results: Results) -> None:
    rows_of(results, lora=10.0, adapter=10.0, bitfit=0.0)
    board = results.board()
    (ranking,) = board.rankings
    assert {row.label: row.near_best for row in ranking.rows.values()} in (
        {"lora": False, "adapter": True, "bitfit": False},
        {"lora": True, "adapter": False, "bitfit": False},
    )
    assert {row.label: row.ranks for row in ranking.rows.values()} == {
        "lora": (1, 2),
        "adapter": (1, 2),
        "bitfit": (3, 3),
    }
    assert isinstance(ranking.nemenyi, Withheld) and "6 tasks are too few" in ranking.nemenyi.reason
    keys = {row.label: key for key, row in ranking.rows.items()}
    difference = ranking.difference(keys["lora"], keys["bitfit"])
    assert difference is not None and 9.5 < difference.low < 10.0 < difference.high < 10.5


def test_few_tasks_are_spoken_of_alone(results: Results) -> None:
    for seed in (0, 1, 2):
        results.run("lora", "vtab/a", 60.0 + seed, seed=seed)
        results.run("bitfit", "vtab/a", 50.0 + seed, seed=seed)
    (ranking,) = results.board().rankings
    assert ranking.over == "seeds"
    assert not any(row.near_best for row in ranking.rows.values())


def test_a_row_has_the_interval_of_its_mean_on_these_tasks(results: Results) -> None:
    rows_of(results, lora=10.0, adapter=0.0)
    for row in results.table().rows:
        values = [sorted(cell.values.values()) for cell in row.cells.values()]
        variance = sum((v[2] - v[0]) ** 2 / 4 / 3 for v in values) / 36  # of three values as far from one another
        assert row.uncertainty is not None and row.mean is not None
        assert row.uncertainty.seeds == pytest.approx(math.sqrt(variance))
        assert row.interval is not None
        assert (row.interval.low + row.interval.high) / 2 == pytest.approx(row.mean.mean)


def test_one_seed_has_no_interval(results: Results) -> None:
    for task in TASKS:
        results.run("lora", task, 50.0)
    (row,) = results.table().rows
    assert row.uncertainty is not None and row.interval is None
    assert isinstance(row.uncertainty.interval, Withheld) and "one seed" in row.uncertainty.interval.reason


def test_sampling_counts_where_figures_are_shares_of_the_test_examples(results: Results) -> None:
    for seed in (0, 1):
        results.run("lora", "vtab/a", 50.0, seed=seed)
        results.run("lora", "vtab/b", 50.123, seed=seed)  # no count out of a hundred
    row = results.table().rows[0]
    alone = uncertainty_of(row, ["vtab/a"])
    assert alone is not None and alone.sampling == pytest.approx(5.0)  # √(.5 · .5 / 100)
    both = uncertainty_of(row, ["vtab/a", "vtab/b"])
    assert both is not None and both.sampling is None
    assert [is_share(run.quality) for run in row.runs if run.quality] == [True, True, False, False]


def test_rows_of_different_budgets_never_meet(results: Results) -> None:
    rows_of(results, lora=10.0, adapter=0.0)
    for method in ("lora", "adapter"):
        for task in TASKS:
            results.search(method, task, [50.0, 51.0, 52.0, 53.0, 54.0], {2: [70.0, 71.0], 4: [72.0, 73.0]})
    plain, tuned = results.board().rankings
    assert [row.budget for row in plain.rows.values()] == [None, None]
    assert len({row.budget for row in tuned.rows.values()}) == 1 and None not in {r.budget for r in tuned.rows.values()}
    assert tuned.scores.cells[0].tolist() == [71.5] * len(TASKS)  # the median of the studies


def test_partial_rows_stand_in_no_ranking(results: Results) -> None:
    rows_of(results, lora=10.0, adapter=0.0)
    results.run("bitfit", TASKS[0], 70.0)
    (ranking,) = results.board().rankings
    assert sorted(row.label for row in ranking.rows.values()) == ["adapter", "lora"]
    assert isinstance(ranking.difference(*ranking.rows), Interval)

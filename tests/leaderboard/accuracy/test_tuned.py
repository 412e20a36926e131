"""Rows of what searches chose: the median of studies, failures, ranks, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from peftmark.leaderboard.tuning.searches import NOT_DEALT, OTHER_TRIALS, STALE, Budget, make_searches

if TYPE_CHECKING:
    from ..conftest import Results

TUNED = "lora tuned, 6 trials"
DIGITS, COUNT = "embedded/digits", "embedded/count"


def mean_figure(row):
    [figure] = [figure for figure in row.figures if figure.column.kind == "mean"]
    return figure


def task_figures(row):
    return {figure.column.label: figure for figure in row.figures if figure.column.kind == "task"}


def test_a_cell_is_the_median_of_studies_and_trials_stand_in_none(results: Results) -> None:
    # studies of 0, 2 and 0, 3 and 0, 1: they choose 2, 3 and 0
    trials = [60.0, 50.0, 70.0, 65.0]
    finals = {2: (71.0, 73.0), 3: (80.0, 80.0), 0: (60.0, 64.0)}
    made = results.search("lora", DIGITS, trials, finals, studies=3)
    [row] = results.table().rows
    cell = row.cells[DIGITS]
    assert (row.label, row.budget) == (TUNED, Budget(6, 3, "halton"))
    assert {run.run_id for run in row.runs} == {run.run_id for run in made if not run.spec.is_trial}
    assert cell.summary.mean == 72.0 and cell.summary.studies == (72.0, 80.0, 62.0)
    assert (cell.summary.low, cell.summary.high, cell.summary.n) == (62.0, 80.0, 2)
    assert cell.summary.std == pytest.approx(((2 + 0 + 8) / 3) ** 0.5)
    assert row.rank == 1 and row.mean.mean == 72.0
    assert results.board().positions.keys() == {run.run_id for run in row.runs}
    lines = task_figures(row)["digits"].title.splitlines()
    assert lines[2] == "study 1: 72.00 ±1.4, 2 seeds; trial 2, learning rate 0.00200, rank 16"
    assert lines[4] == "study 3: 62.00 ±2.8, 2 seeds; trial 0, learning rate 0.00800, rank 8"


def test_the_mean_is_the_median_of_the_studies_means_not_the_mean_of_medians(results: Results) -> None:
    trials = [60.0, 61.0, 62.0, 63.0]  # each study chooses its own: 2, 3, 1
    results.search("lora", DIGITS, trials, {2: (10.0, 10.0), 3: (20.0, 20.0), 1: (60.0, 60.0)}, studies=3)
    results.search("lora", COUNT, trials, {2: (90.0, 90.0), 3: (20.0, 20.0), 1: (30.0, 30.0)}, studies=3)
    row = results.rows()[TUNED]
    assert row.mean.studies == (50.0, 20.0, 45.0) and row.mean.mean == 45.0  # the medians are 20 and 30
    assert mean_figure(row).title.endswith("the median of 3 studies: 50.00, 20.00, 45.00")


def test_studies_that_choose_the_same_trial_share_its_runs(results: Results) -> None:
    results.search("lora", DIGITS, [60.0, 50.0, 50.0, 50.0, 50.0], {0: (70.0, 72.0, 74.0)})
    row = results.rows()[TUNED]
    assert len(row.runs) == 3 and row.rank == 1
    assert row.cells[DIGITS].summary.studies == (72.0, 72.0) and row.cells[DIGITS].summary.std == 2.0


def test_one_study_is_as_any_row(results: Results) -> None:
    results.search("lora", DIGITS, [60.0, 70.0], {1: (70.0, 74.0)}, budget=2, studies=1)
    summary = results.rows()["lora tuned, 2 trials"].cells[DIGITS].summary
    assert (summary.mean, summary.studies) == (72.0, ())


def test_a_study_that_failed_is_the_worst_and_stays_in_the_median(results: Results) -> None:
    trials = [60.0, 61.0, 62.0, 63.0]
    results.search("lora", DIGITS, trials, {2: (90.0, 90.0), 3: (80.0, None), 1: (70.0, 70.0)}, studies=3)
    row = results.rows()[TUNED]
    assert row.cells[DIGITS].summary.mean == 70.0  # of 90, 70 and what failed
    assert row.rank == 1
    figure = task_figures(row)["digits"]
    assert figure.incomplete and "study 2: failed, counts as the worst" in figure.title


def test_most_studies_failed(results: Results) -> None:
    trials = [60.0, 61.0, 62.0, 63.0]
    results.search("lora", DIGITS, trials, {2: (90.0, 90.0), 3: (None, None), 1: (None, 70.0)}, studies=3)
    results.search("other", DIGITS, trials, {2: (50.0,), 3: (50.0,), 1: (50.0,)}, studies=3)
    row = results.rows()[TUNED]
    assert (row.rank, row.mean, task_figures(row)["digits"].status) == (None, None, "diverged")
    assert row.remark == "not ranked: covers 0 of 1 tasks; most studies failed on 1 task"


def test_studies_that_fail_on_different_tasks(results: Results) -> None:
    trials = [60.0, 61.0, 62.0, 63.0]
    results.search("lora", DIGITS, trials, {2: (None,), 3: (80.0,), 1: (70.0,)}, studies=3)
    results.search("lora", COUNT, trials, {2: (90.0,), 3: (None,), 1: (70.0,)}, studies=3)
    row = results.rows()[TUNED]
    assert {task: cell.summary.mean for task, cell in row.cells.items()} == {DIGITS: 70.0, COUNT: 70.0}
    assert row.rank is None and row.remark == "not ranked: most of its studies failed on some task"


def test_lower_is_better(results: Results) -> None:
    of_errors = {"studies": 3, "higher_is_better": False, "unit": "pixels"}
    finals = {2: (9.0,), 3: (None,), 1: (7.0,)}
    results.search("lora", DIGITS, [6.0, 5.0, 5.0, 5.0], finals, **of_errors)
    assert results.rows()[TUNED].cells[DIGITS].summary.mean == 9.0  # of 7, 9 and what failed


def test_default_and_tuned_are_two_rows_ranked_apart(results: Results) -> None:
    for method, default, tuned in (("lora", 60.0, 65.5), ("bitfit", 62.0, 63.0)):
        results.run(method, DIGITS, default, config={"rank": 8})
        results.run(method, COUNT, default, config={"rank": 8})
        for task in (DIGITS, COUNT):
            results.search(method, task, [60.0, 70.0, 50.0, 50.0, 50.0], {1: (tuned, tuned), 0: (tuned, tuned)})
    table = results.table()
    assert [(row.label, row.rank) for row in table.rows] == [
        ("bitfit", 1),
        ("lora", 2),
        ("lora tuned, 6 trials", 1),
        ("bitfit tuned, 6 trials", 2),
    ]
    rows = {row.label: row for row in table.rows}
    assert rows[TUNED].default is rows["lora"] and rows[TUNED].gain == 5.5
    assert rows["lora"].gain is None
    assert (table.ranked(None), table.ranked(Budget(6, 2, "halton"))) == (2, 2)
    assert {row.label for row in table.rows if any(figure.best for figure in row.figures)} == {"bitfit", TUNED}


def test_a_tuned_row_costs_what_the_default_costs(results: Results) -> None:
    results.cost("lora", 5 * 10**8, backbone="embedded/vit", config={"rank": 8})
    results.search("lora", DIGITS, [60.0, 70.0, 50.0, 50.0, 50.0], {1: (70.0,), 0: (60.0,)})
    cost = results.rows()[TUNED].cost
    assert cost is not None and cost.record.spec.method.config == {"rank": 8}


def test_budgets_are_ranked_apart(results: Results) -> None:
    results.search("lora", DIGITS, [60.0, 70.0], {1: (70.0,)}, budget=2, studies=1)
    results.search("lora", DIGITS, [60.0, 70.0, 50.0], {1: (80.0,)}, budget=3, studies=1)
    assert {row.label: row.rank for row in results.table().rows} == {
        "lora tuned, 2 trials": 1,
        "lora tuned, 3 trials": 1,
    }


def test_a_search_that_departs_from_the_protocol_is_not_ranked(results: Results) -> None:
    results.run("lora", DIGITS, 60.0, config={"rank": 8}, overrides={"epochs": 2})
    results.search("lora", DIGITS, [60.0] * 5, {0: (70.0,)}, overrides={"epochs": 2})
    row = results.rows()[f"{TUNED} deviation"]
    assert (row.state, row.rank, row.gain) == ("deviation", None, 10.0)


def test_missing_trials_make_the_row_partial(results: Results) -> None:
    made = results.search("lora", DIGITS, [60.0, 70.0, 50.0, 50.0], {1: (70.0,), 0: (60.0,)})  # not trial 4
    row = results.rows()[TUNED]
    assert (row.state, row.rank) == ("partial", None)
    assert row.remark == "not ranked: covers 0 of 1 tasks; trials are missing on 1 task"
    assert task_figures(row)["digits"].summary.mean == 65.0
    assert not results.board().left_out
    searches, _ = make_searches(made)
    assert [search.missing for search in searches.values()] == [[4]]


def test_a_study_that_is_not_tested_yet(results: Results) -> None:
    results.search("lora", DIGITS, [60.0, 70.0, 50.0, 80.0, 50.0], {1: (70.0,)})  # the other chose trial 3
    row = results.rows()[TUNED]
    assert row.remark == "not ranked: covers 0 of 1 tasks; not all studies are tested on 1 task"
    assert task_figures(row)["digits"].summary.mean == 70.0


def test_final_runs_of_what_is_no_longer_chosen_are_left_out(results: Results) -> None:
    made = results.search("lora", DIGITS, [60.0, 70.0, 50.0, 50.0, 50.0], {1: (70.0,), 0: (60.0,), 4: (99.0,)})
    board = results.board()
    stale = made[-1]
    assert board.left_out == {stale.run_id: STALE}
    [table] = board.tracks[0].tables
    assert table.notes == [f"1 run left out: {STALE}."]
    assert stale.run_id not in board.positions and table.rows[0].mean.mean == 65.0


def test_trials_with_another_seed_are_no_part_of_the_search(results: Results) -> None:
    made = results.search("lora", DIGITS, [60.0, 70.0, 50.0, 50.0, 50.0], {1: (70.0,), 0: (60.0,)})
    spec = msgspec.structs.replace(made[4].spec, seed=9)
    other = msgspec.structs.replace(made[4], spec=spec, run_id=spec.run_id)
    searches, left_out = make_searches([other, *made])
    [search] = searches.values()
    assert left_out == {other.run_id: OTHER_TRIALS}
    assert search.choices == [1, 0] and [run.spec.seed for run in search.records] == [0] * 5 + [1, 1]


def test_a_cancelled_trial_is_a_missing_one_and_a_cancelled_final_run_no_failure(results: Results) -> None:
    made = results.search("lora", DIGITS, [60.0, 70.0, 50.0, None, 50.0], {1: (70.0, None), 0: (60.0,)})
    cancelled = [msgspec.structs.replace(run, status="cancelled") if run.error else run for run in made]
    [search] = make_searches(cancelled)[0].values()
    assert search.missing == [3] and search.choices is None
    results.records[:] = [run for run in cancelled if run.spec.trial != 3] + [made[3]]
    row = results.rows()[TUNED]
    assert row.rank == 1 and row.mean.mean == 65.0 and row.mean.n == 1


def test_final_runs_with_other_settings_than_the_trial_are_left_out(results: Results) -> None:
    made = results.search("lora", DIGITS, [60.0, 70.0, 50.0, 50.0, 50.0], {1: (70.0,), 0: (60.0, 61.0)})
    tuning = msgspec.structs.replace(made[-1].spec.tuning, learning_rate=0.5)  # what the default was once
    spec = msgspec.structs.replace(made[-1].spec, tuning=tuning)
    old = msgspec.structs.replace(made[-1], spec=spec, run_id=spec.run_id)
    searches, left_out = make_searches([old, *made])
    assert len(searches) == 1 and left_out == {old.run_id: STALE}


@pytest.mark.parametrize("budget", [{"trials": 5, "studies": 2}, {"trials": 10**12, "studies": 1}, {"studies": 0}])
def test_a_budget_that_cannot_be_dealt_stands_nowhere(results: Results, budget: dict[str, int]) -> None:
    made = results.search("lora", DIGITS, [60.0], {0: (70.0,)})
    results.records.clear()
    for run in made:
        spec = msgspec.structs.replace(run.spec, tuning=msgspec.structs.replace(run.spec.tuning, **budget))
        results.records.append(msgspec.structs.replace(run, spec=spec, run_id=spec.run_id))
    board = results.board()
    assert board.searches == {} and board.tracks == []
    assert set(board.left_out.values()) == {NOT_DEALT} and len(board.left_out) == 2


def test_a_trial_beyond_the_budget_is_left_out(results: Results) -> None:
    made = results.search("lora", DIGITS, [60.0, 70.0, 50.0, 50.0, 50.0, 90.0], {1: (70.0,), 0: (60.0,), 5: (99.0,)})
    board = results.board()
    assert board.left_out == {made[5].run_id: NOT_DEALT, made[-1].run_id: NOT_DEALT}
    [search] = board.searches.values()
    assert search.indices == [0, 1, 2, 3, 4]


def test_trials_alone_make_no_table(results: Results) -> None:
    results.search("lora", DIGITS, [60.0, None], {})
    board = results.board()
    assert board.tracks == [] and board.left_out == {}
    [search] = board.searches.values()
    assert search.missing == [2, 3, 4] and search.choices is None


def test_a_failed_trial_costs_a_trial_and_what_is_searched_is_no_difference(results: Results) -> None:
    results.method("lora", "reparameterized", defaults={"rank": 8})
    results.search("lora", DIGITS, [60.0, None, None, 70.0, 50.0], {0: (60.0,), 3: (70.0,)})
    [row] = results.table().rows
    assert (row.label, row.config, row.rank) == (TUNED, {}, 1)

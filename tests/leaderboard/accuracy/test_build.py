"""What stands in the tables: figures, ranks, and what is kept out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftmark.leaderboard.accuracy.table import Figure, Row

if TYPE_CHECKING:
    from ..conftest import Results


def by_column(row: Row) -> dict[str, Figure]:
    return {figure.column.title.partition(":")[0]: figure for figure in row.figures if figure.column.kind == "task"}


def shown(row: Row, kind: str) -> list[float | None]:
    return [figure.summary.mean if figure.summary else None for figure in row.figures if figure.column.kind == kind]


def test_cells_groups_and_means(results: Results) -> None:
    for name, group in (("a", "natural"), ("b", "natural"), ("c", "structured"), ("d", "structured")):
        results.task(f"embedded/{name}", group)
    for seed, values in enumerate([(50.0, 70.0, 20.0, 30.0), (54.0, 70.0, 20.0, 30.0)]):
        for name, value in zip("abcd", values, strict=True):
            results.run("linear", f"embedded/{name}", value, seed=seed)
    row = results.rows()["linear"]
    cell = by_column(row)["embedded/a"].summary
    assert cell is not None and (cell.mean, cell.n) == (52.0, 2)
    assert cell.std == pytest.approx(8**0.5)
    assert shown(row, "group") == [61.0, 25.0]
    assert shown(row, "mean") == [43.0]
    assert row.mean is not None and row.mean.std == pytest.approx(0.5**0.5)  # seeds' means: 42.5 and 43.5


def test_rank_by_mean_with_ties_and_best_in_bold(results: Results) -> None:
    for method, a, b in (("low", 10.0, 20.0), ("tie1", 50.0, 30.0), ("top", 40.0, 90.0), ("tie2", 30.0, 50.0)):
        results.run(method, "vtab/a", a)
        results.run(method, "vtab/b", b)
    table = results.table()
    assert [(row.rank, row.method.name) for row in table.rows] == [(1, "top"), (2, "tie1"), (2, "tie2"), (4, "low")]
    best = {(row.method.name, figure.column.label) for row in table.rows for figure in row.figures if figure.best}
    assert best == {("top", "Mean"), ("tie1", "a"), ("top", "b")}


def test_partial_row_is_shown_but_neither_ranked_nor_best(results: Results) -> None:
    for task in ("vtab/a", "vtab/b"):
        results.run("linear", task, 50.0)
    results.run("half", "vtab/a", 99.0)
    row = results.rows()["half"]
    assert (row.state, row.rank, row.mean) == ("partial", None, None)
    assert row.remark == "not ranked: covers 1 of 2 tasks"
    assert shown(row, "task") == [99.0, None]
    assert not any(figure.best for figure in row.figures)
    assert results.rows()["linear"].rank == 1


def test_a_task_on_which_only_deviations_succeed_costs_nobody_the_rank(results: Results) -> None:
    results.run("linear", "vtab/a", 50.0)
    results.run("linear", "vtab/b", status="error")
    results.run("linear", "vtab/b", 50.0, overrides={"epochs": 1})
    assert results.rows()["linear"].rank == 1
    assert [task.counts for task in results.table().tasks] == [True, False]


@pytest.mark.parametrize("departure", [{"overrides": {"epochs": 2}}, {"deviation": "stopped early"}])
def test_deviations_have_unranked_rows_and_never_enter_a_mean(results: Results, departure: dict[str, object]) -> None:
    results.run("lora", "vtab/a", 50.0, seed=0)
    results.run("lora", "vtab/a", 52.0, seed=1)
    results.run("lora", "vtab/a", 90.0, seed=2, **departure)  # type: ignore[arg-type]
    rows = results.rows()
    assert shown(rows["lora"], "task") == [51.0]
    assert rows["lora"].rank == 1
    assert shown(rows["lora deviation"], "task") == [90.0]
    assert (rows["lora deviation"].rank, rows["lora deviation"].state) == (None, "deviation")
    assert ("epochs=2" in rows["lora deviation"].remark) == ("overrides" in departure)


def test_configurations_are_rows_named_by_their_difference(results: Results) -> None:
    for seed in (0, 1):
        results.run("lora", "vtab/a", 50.0, seed=seed, config={"rank": 8, "alpha": 4})
    results.run("lora", "vtab/a", 60.0, config={"rank": 16, "alpha": 4})
    assert set(results.rows()) == {"lora", "lora rank=16"}
    results.method("lora", "reparameterized", defaults={"rank": 16, "alpha": 4})  # a card knows better than the count
    assert set(results.rows()) == {"lora rank=8", "lora"}


@pytest.mark.parametrize("status", ["unsupported", "oom", "diverged", "timeout", "error"])
def test_failures_are_cells_with_their_reason(results: Results, status: str) -> None:
    results.run("linear", "vtab/a", 50.0)
    record = results.run("broken", "vtab/a", status=status, message="needs a class token")
    [figure] = results.rows()["broken"].figures
    assert (figure.summary, figure.status) == (None, status)
    assert figure.href == f"run.html#{record.run_id}"
    assert "needs a class token" in figure.title
    assert results.rows()["broken"].state == "partial"


def test_a_failed_seed_makes_the_cell_incomplete(results: Results) -> None:
    results.run("vpt", "vtab/a", 50.0, seed=0)
    results.run("vpt", "vtab/a", seed=1, status="diverged")
    results.run("linear", "vtab/a", 40.0, seed=0)
    results.run("linear", "vtab/a", seed=1, status="cancelled")
    rows = results.rows()
    assert rows["vpt"].figures[0].incomplete
    assert rows["vpt"].rank is None
    assert rows["linear"].rank == 1


def test_parts_of_a_task_beside_its_headline(results: Results) -> None:
    results.task("base2new/dtd", "open vocabulary", "openvocab")
    parts = {"base": 60.0, "new": 30.0, "H": 40.0}
    results.run("coop", "base2new/dtd", 40.0, tests=parts, metric="harmonic_mean")
    table = results.table()
    assert table.track == "openvocab"
    [task] = table.tasks
    assert [task.headline.label, *(part.label for part in task.parts)] == ["H", "base", "new"]
    assert [figure.summary.mean for figure in table.rows[0].figures if figure.summary] == [40.0, 60.0, 30.0]


def test_open_vocabulary_has_a_table_for_every_group_of_tasks(results: Results) -> None:
    """A method that was not run on the few-shot tasks is ranked where it was run; images are averaged over groups."""
    for name, group in (("a/b2n", "base-to-new"), ("a/1shot", "few-shot"), ("a/2shot", "few-shot")):
        results.task(name, group, "openvocab")
        results.run("coop", name, 40.0)
    results.run("tpt", "a/b2n", 50.0)
    results.run("linear", "vtab/a", 40.0)
    results.run("linear", "vtab/b", 40.0)
    tables = {(table.track, table.section): table for track in results.board().tracks for table in track.tables}
    assert list(tables) == [("image", ""), ("openvocab", "base-to-new"), ("openvocab", "few-shot")]
    assert [table.counted for table in tables.values()] == [2, 1, 2]
    ranks = {row.method.name: row.rank for row in tables["openvocab", "base-to-new"].rows}
    assert ranks == {"tpt": 1, "coop": 2}
    assert len({table.key for table in tables.values()}) == 3


def test_what_is_measured_otherwise_has_a_table_of_its_own_ranked_its_own_way(results: Results) -> None:
    """No mean is taken over percent and pixels; of errors the smallest is the best."""
    for method, accuracy, error in (("lora", 70.0, 3.0), ("vpt", 60.0, 2.0), ("full", 50.0, 4.0)):
        results.run(method, "vtab/a", test=accuracy)
        for task in ("flow/a", "flow/b"):
            results.run(method, task, test=error, metric="error", unit="pixels", higher_is_better=False)
        results.task("vtab/a", "natural")
        results.task("flow/a", "flow")
        results.task("flow/b", "flow")
    [track] = results.board().tracks
    flow, vtab = sorted(track.tables, key=lambda table: table.scale.unit, reverse=True)
    assert [(row.method.name, row.rank) for row in vtab.rows] == [("lora", 1), ("vpt", 2), ("full", 3)]
    assert [(row.method.name, row.rank) for row in flow.rows] == [("vpt", 1), ("lora", 2), ("full", 3)]
    assert [cell.best for row in flow.rows for cell in row.figures] == [True] * 3 + [False] * 6
    assert (flow.scale.sign, vtab.scale.sign) == (" pixels", "%")
    assert "in pixels" in flow.tasks[0].headline.title
    assert flow.key != vtab.key


def test_parameters_without_head_and_their_share_of_the_backbone(results: Results) -> None:
    results.run("linear", "vtab/a", 50.0, params=0)
    results.run("lora", "vtab/a", 60.0, params=20_000)
    rows = results.rows()
    assert rows["linear"].parameters is not None and rows["linear"].parameters.median == 0
    assert rows["lora"].parameters is not None
    assert (rows["lora"].parameters.median, rows["lora"].parameters.share) == (20_000, 0.02)


def test_tracks_come_from_cards_or_names(results: Results) -> None:
    results.task("embedded/motion", "video", "video")
    for task in ("embedded/motion", "vtab/a", "base2new/dtd", "plugin/cars"):
        results.run("linear", task, 50.0)
    assert [track.title for track in results.board().tracks] == ["Image", "Open vocabulary", "Video", "Plugin"]


def test_backbones_and_weights_have_tables_of_their_own(results: Results) -> None:
    results.run("linear", "vtab/a", 50.0)
    results.run("linear", "vtab/a", 60.0, backbone="timm/vit")
    assert len(results.board().tracks[0].tables) == 2
    results.run("linear", "vtab/a", 20.0, weights="random")  # joins the pretrained ones, as a row
    [first, _] = results.board().tracks[0].tables
    assert {row.label: row.rank for row in first.rows} == {"linear": 1, "linear random weights": 2}
    results.run("linear", "vtab/a", 70.0, weights="other")
    assert len(results.board().tracks[0].tables) == 4


def test_older_versions_of_a_method_are_not_ranked(results: Results) -> None:
    results.run("lora", "vtab/a", 90.0, method_version=1)
    results.run("lora", "vtab/a", 60.0, method_version=2)
    rows = results.rows()
    assert rows["lora v2"].rank == 1
    assert (rows["lora v1"].rank, rows["lora v1"].state) == (None, "superseded")


def test_other_task_versions_and_splits_are_left_out_with_the_reason(results: Results) -> None:
    old = results.run("linear", "vtab/a", 90.0, task_version=1)
    results.run("linear", "vtab/a", 50.0, task_version=2)
    results.run("lora", "vtab/a", 50.0, task_version=2)
    odd = results.run("full", "vtab/a", 50.0, task_version=2, split="mine")
    board = results.board()
    assert set(board.left_out) == {old.run_id, odd.run_id}
    assert shown(results.rows()["linear"], "task") == [50.0]
    assert "full" not in results.rows()
    assert len(results.table().notes) == 2


def test_runs_on_other_pixels_are_noted(results: Results) -> None:
    results.run("linear", "vtab/a", 50.0)
    results.run("lora", "vtab/a", 50.0, data="JPEG")
    [note] = results.table().notes
    assert "data_sha256" in note


def test_seeds_on_other_pixels_are_noted(results: Results) -> None:
    """Images replaced under their names between two commands: the split is the same, the mean is over two data sets."""
    results.run("linear", "vtab/a", 50.0, seed=0)
    results.run("linear", "vtab/a", 50.0, seed=1, data="replaced")
    [note] = [note for note in results.table().notes if "data_sha256" in note]
    assert "vtab/a" in note


def test_every_run_has_one_place(full_results: Results) -> None:
    board = full_results.board()
    assert set(board.positions) | set(board.left_out) == {record.run_id for record in full_results.records}
    for record in full_results.records:
        assert record in board.positions[record.run_id].cell.runs

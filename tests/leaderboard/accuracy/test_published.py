"""Published figures on the board: beside what was measured, never among it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peftmark.leaderboard.accuracy.published import Published, compare
from peftmark.results.published import PublishedFigure, load_published

if TYPE_CHECKING:
    from ..conftest import Results

VIT = "timm/vit_base_patch16_224.orig_in21k"


def published(value: float, method: str = "lora", **changes: object) -> PublishedFigure:
    values = {
        "benchmark": "vtab1k",
        "title": "VTAB-1k",
        "method": method,
        "task": "vtab/cifar",
        "backbone": VIT,
        "setting": "",
        "metric": "top1",
        "value": value,
        "parameters_millions": 0.3,
        "source": "a paper",
        "unaligned": (),
        "line": 2,
    }
    return PublishedFigure(**(values | changes))  # type: ignore[arg-type]


def compared(results: Results, *figures: PublishedFigure) -> list[tuple[str, float, float]]:
    """Row, published value and difference."""
    found = compare(results.board(), figures).comparisons
    return [(each.row.label, each.beside.figure.value, each.beside.difference) for each in found]


def test_a_figure_stands_beside_the_same_method_task_and_backbone(results: Results) -> None:
    for seed, value in enumerate((70.0, 72.0)):
        results.run("lora", "vtab/cifar", value, seed=seed, backbone=VIT)
    results.run("lora", "vtab/dtd", 60.0, backbone=VIT)
    results.run("bitfit", "vtab/cifar", 60.0, backbone=VIT)
    results.run("lora", "vtab/cifar", 50.0, backbone="timm/vit_base_patch16_224.augreg_in21k")
    assert compared(results, published(71.5)) == [("lora", 71.5, -0.5)]
    board = results.board()
    compare(board, [published(71.5), published(70.0, setting="16 frames")])
    shown = {
        (table.backbone.name, row.label, figure.column.label): [each.figure.value for each in figure.published]
        for track in board.tracks for table in track.tables for row in table.rows for figure in row.figures
        if figure.published
    }  # fmt: skip
    assert shown == {(VIT, "lora", "cifar"): [71.5, 70.0]}


@pytest.mark.parametrize(
    "changes", [{"metric": "top1_best_on_test"}, {"unaligned": ("method",)}, {"unaligned": ("backbone",)}]
)
def test_what_cannot_be_compared_is_not(results: Results, changes: dict[str, object]) -> None:
    results.run("lora", "vtab/cifar", 70.0, backbone=VIT)
    assert compared(results, published(71.5, **changes)) == []


def test_neither_random_weights_nor_failures_are_compared(results: Results) -> None:
    results.run("lora", "vtab/cifar", 10.0, backbone=VIT, weights="random")
    results.run("lora", "vtab/cifar", status="oom", backbone=VIT)
    results.run("bitfit", "vtab/cifar", 50.0, backbone=VIT)
    assert compared(results, published(71.5)) == []


def test_a_figure_never_changes_a_rank_or_a_mean_or_what_is_bold(results: Results) -> None:
    for method, value in (("lora", 70.0), ("bitfit", 60.0), ("full", 65.0)):
        results.run(method, "vtab/cifar", value, backbone=VIT)
        results.run(method, "vtab/dtd", value - 10, backbone=VIT)

    def standing(figures: list[PublishedFigure]) -> list[tuple[object, ...]]:
        board = results.board()
        compare(board, figures)
        [table] = board.tracks[0].tables
        return [
            (row.rank, row.label, row.state, row.mean, [(f.summary, f.best) for f in row.figures]) for row in table.rows
        ]

    without = standing([])
    assert [row[:2] for row in without] == [(1, "lora"), (2, "full"), (3, "bitfit")]
    assert standing([published(99.9, method="bitfit"), published(1.0)]) == without


def test_tables_have_rows_by_name_and_say_what_peftmark_has_not() -> None:
    figures = load_published()
    tables = Published(figures, []).tables
    assert sum(len(row.figures) for table in tables for row in table.rows) == len(figures)
    by_title = {(table.title, table.metric): table for table in tables}
    assert len(by_title) == len(tables)
    vtab = by_title["VTAB-1k, V-PETL Bench", "top1"]
    assert len(vtab.columns) == 19
    names = [row.method for row in vtab.rows]
    assert len(names) == 20 and names == sorted(names, key=str.lower)
    assert {row.method for row in vtab.rows if row.absent} == {"SCT", "Hydra", "LST", "DTL", "HST", "LAST", "SNF"}
    [base] = [table for table in tables if table.metric == "parts"]
    assert base.columns == ("base", "new", "harmonic")
    assert {row.method: row.figures["harmonic"].value for row in base.rows}["promptsrc"] == 79.97


def text(path: Path) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")).split())


def test_the_pages_show_both_with_the_difference_and_the_source(results: Results, tmp_path: Path) -> None:
    results.run("bitfit", "vtab/cifar", 70.0, backbone=VIT)
    [known] = [f for f in load_published() if (f.benchmark, f.method, f.task) == ("vtab1k", "bitfit", "vtab/cifar")]
    assert known.value == 72.8
    site = results.build(tmp_path / "board")
    index = text(site / "index.html")
    assert "70.0 published 72.8 (−2.8)" in index
    assert known.source in (site / "index.html").read_text(encoding="utf-8")
    page = text(site / "published.html")
    assert f"70.0 72.8 published −2.8 {known.source}" in page
    assert "1167 figures" in page and "not in peftmark" in page and "its own name" in page
    assert 'href="published.html"' in (site / "runs.html").read_text(encoding="utf-8")


def test_faithful_rows_are_one_row_over_tasks_badged_and_unranked(results: Results, tmp_path: Path) -> None:
    for task, scale in (("vtab/cifar", 0.1), ("vtab/dtd", 10.0)):
        results.run("ssf", task, 60.0, config={"scale": 1.0, "rank": 8}, backbone=VIT)
        results.run(
            "ssf",
            task,
            90.0,
            config={"scale": scale, "rank": 8},
            overrides={"preset": "faithful", "learning_rate": scale},
            deviation="faithful preset of ssf, after a/b; not expressed: drop path",
            backbone=VIT,
        )
    rows = results.rows()
    assert set(rows) == {"ssf", "ssf faithful"}
    row = rows["ssf faithful"]
    assert (row.rank, row.state, row.badges) == (None, "deviation", ("faithful",))
    assert sorted(row.cells) == ["vtab/cifar", "vtab/dtd"]
    assert row.config == {"rank": 8}
    assert "not expressed: drop path" in row.remark
    assert rows["ssf"].rank == 1
    assert rows["ssf"].mean is not None and rows["ssf"].mean.mean == 60.0
    site = results.build(tmp_path / "board")
    assert "not expressed: drop path" in (site / "index.html").read_text(encoding="utf-8")
    faithful = next(record for record in results.records if record.spec.protocol.faithful)
    [file] = (site / "data" / "runs").glob(f"{faithful.run_id[0]}.js")
    [line] = [line for line in file.read_text("utf-8").splitlines() if line.startswith(f'"{faithful.run_id}"')]
    assert "--preset faithful" in line and "--set" not in line


def test_a_changed_preset_is_an_ordinary_deviation(results: Results) -> None:
    results.run("ssf", "vtab/cifar", 60.0, backbone=VIT)
    changed = {"preset": "faithful, with changes", "epochs": 1}
    results.run("ssf", "vtab/cifar", 90.0, overrides=changed, deviation="…", backbone=VIT)
    rows = results.rows()
    assert set(rows) == {"ssf", "ssf deviation"}
    assert rows["ssf deviation"].rank is None

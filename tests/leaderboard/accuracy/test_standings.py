"""Rows on one task, and how orders on two backbones agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scipy.stats import kendalltau

from peftmark.leaderboard.accuracy.standings import agreements, on_tasks

if TYPE_CHECKING:
    from ..conftest import Results


def test_a_task_has_its_own_order(results: Results) -> None:
    figures = {"linear": (90.0, 10.0), "lora": (80.0, 80.0), "full": (80.0, 60.0)}
    for method, (a, b) in figures.items():
        for seed in (0, 1):
            results.run(method, "vtab/a", a + seed, seed=seed)
            results.run(method, "vtab/b", b, seed=seed)
    results.run("partial", "vtab/a", 99.0)
    results.run("full", "vtab/a", 95.0, overrides={"epochs": 2})
    [of_table] = on_tasks(results.board())["vtab/a"]
    found = [(each.row.label, each.summary.mean, each.rank, each.of) for each in of_table.standings]
    assert found == [
        ("linear", 90.5, 1, 3),  # last by the mean over both
        ("full", 80.5, 2, 3),
        ("lora", 80.5, 2, 3),
        ("partial", 99.0, None, 0),
        ("full deviation", 95.0, None, 0),
    ]
    assert [each.row.label for each in of_table.default] == ["linear", "full", "lora"]
    assert [each.row.label for each in on_tasks(results.board())["vtab/b"][0].standings] == ["lora", "full", "linear"]


def test_lower_may_be_better(results: Results) -> None:
    for method, value in (("linear", 3.0), ("lora", 1.0)):
        results.run(method, "mine/angles", value, unit="radians", higher_is_better=False)
    [of_table] = on_tasks(results.board())["mine/angles"]
    assert [(each.row.label, each.rank) for each in of_table.standings] == [("lora", 1), ("linear", 2)]


def test_a_task_without_figures_has_no_order(results: Results) -> None:
    results.run("linear", "vtab/a", 50.0)
    results.run("linear", "vtab/b", status="oom")
    assert set(on_tasks(results.board())) == {"vtab/a"}


@pytest.fixture
def two_backbones(results: Results) -> Results:
    ours, theirs = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0), (12.0, 11.0, 33.0, 50.0, 44.0, 60.0)
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        results.run(f"m{number}", "vtab/a", one, backbone="timm/one")
        results.run(f"m{number}", "vtab/a", other, backbone="timm/other")
        results.run(f"m{number}", "vtab/b", 90.0 - number, backbone="timm/other")  # not a task of both
    results.run("alone", "vtab/a", 70.0, backbone="timm/one")
    return results


def test_agreement_is_kendall_s_tau_over_what_both_have(two_backbones: Results) -> None:
    tables = [table for track in two_backbones.board().tracks for table in track.tables]
    [found] = agreements(tables, "timm/one")
    expected = kendalltau([10, 20, 30, 40, 50, 60], [12, 11, 33, 50, 44, 60]).statistic
    assert found.tau == pytest.approx(expected) == pytest.approx((13 - 2) / 15)
    assert (found.table.backbone.name, found.other.backbone.name) == ("timm/one", "timm/other")
    assert (found.rows, found.tasks) == (6, 1)
    assert [each.other.backbone.name for each in agreements(tables, "timm/other")] == ["timm/one"]


def test_too_few_shared_rows_are_no_order(results: Results) -> None:
    for number in range(4):
        for backbone in ("timm/one", "timm/other"):
            results.run(f"m{number}", "vtab/a", 10.0 * number, backbone=backbone)
    results.run("m4", "vtab/a", 50.0, backbone="timm/one")
    results.run("m4", "vtab/a", 50.0, backbone="timm/other", config={"rank": 2})  # another row
    tables = [table for track in results.board().tracks for table in track.tables]
    assert agreements(tables, "timm/one") == []

"""The table of all runs: its pages, and the data of the one that is searched."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .test_pages import Page

if TYPE_CHECKING:
    from ..conftest import Results

HOSTILE = '<script>alert("x")</script>'


def data(site: Path) -> dict[str, Any]:
    text = (site / "data" / "runs.js").read_text("utf-8")
    return dict(json.loads(text[text.index("peftmark.runs=") + len("peftmark.runs=") : -2]))


@pytest.fixture
def site(results: Results, tmp_path: Path) -> Path:
    for seed in range(3):
        results.run("lora", "vtab/a", 50.04 + seed, seed=seed)
    results.run("lora", "vtab/b", status="oom", message=HOSTILE)
    results.run("lora", "vtab/a", 1.0, seed=2, overrides={"epochs": 2}, deviation=HOSTILE)
    results.run("lora", "vtab/a", 1.0, seed=2, overrides={"preset": "faithful"})
    results.run(HOSTILE, "vtab/d", 1.0, seed=1)
    results.run("lora", "vtab/d", 1.0, seed=1)
    results.run("linear", "vtab/d", 1.0, seed=1, split="another")
    results.search("lora", "vtab/c", [60.0, 70.0], {0: (50.0,)}, budget=2, studies=2)
    return results.build(tmp_path / "board")


def test_data_of_the_table(results: Results, site: Path) -> None:
    told = data(site)
    assert told["searched"] is True
    rows = {row[0]: row for row in told["rows"]}
    assert list(rows) == sorted(record.run_id for record in results.records)
    for record in results.records:
        row, spec = rows[record.run_id], record.spec
        names = [told[kind][place] for kind, place in zip(("methods", "backbones", "tasks"), row[1:4], strict=True)]
        assert names == [spec.method.name, spec.backbone.name, spec.task.name]
        assert (row[5], told["statuses"][row[6]]) == (spec.seed, record.status)
        assert row[7] == (record.trial.validation if record.trial else None)
        assert row[8] == (record.quality.test if record.quality else None)
        assert row[9] == "2026-11-24 03:00"
        expected = None if not spec.tuning else spec.trial if spec.is_trial else -1 - spec.trial
        assert row[4] == expected
    notes = [told["notes"][rows[record.run_id][10]] for record in results.records]
    assert notes[:3] == [[""]] * 3
    assert notes[3:9] == [
        [HOSTILE],
        ["", ["deviation", HOSTILE]],
        ["", ["faithful", ""]],
        [""],
        [""],
        ["", ["left out", "another split of vtab/d than most runs have"]],
    ]
    assert "<" not in (site / "data" / "runs.js").read_text("utf-8")


def test_the_same_without_javascript(results: Results, site: Path) -> None:
    text = (site / "runs.html").read_text("utf-8")
    rows = [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)).strip() for row in text.split("<tr>")[2:]]
    rows[-1] = rows[-1].partition(" Built")[0]
    by_id = {row.split()[0]: row for row in rows}
    assert list(by_id) == sorted(record.run_id for record in results.records)
    first, failed, deviation = (results.records[place] for place in (0, 3, 4))
    assert by_id[first.run_id] == f"{first.run_id} record lora embedded/vit vtab/a 0 ok 50.0 2026-11-24 03:00"
    assert by_id[failed.run_id] == f"{failed.run_id} record lora embedded/vit vtab/b 0 oom – 2026-11-24 03:00"
    assert "ok deviation 1.0" in by_id[deviation.run_id]
    final = results.records[-1]
    assert by_id[final.run_id].endswith("vtab/c tuned, 0 1 ok 50.0 2026-11-24 03:00")
    page = Page(text)
    assert f"run.html#{first.run_id}" in [reference for _, reference in page.references]
    assert f"data/runs/{first.run_id[0]}.js" in [reference for _, reference in page.references]
    assert sum(tag == "script" for tag, _ in page.elements) == 5
    assert 'title="&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;"' in text


def test_pages_of_rows(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftmark.leaderboard.site.pages.ROWS", 4)
    for seed in range(9):
        results.run("lora", "vtab/a", 50.0, seed=seed)
    site = results.build(tmp_path / "board")
    ids = sorted(record.run_id for record in results.records)
    shown = []
    for name in ("runs.html", "runs/2.html", "runs/3.html"):
        page = Page((site / name).read_text("utf-8"))
        shown += [reference.rpartition("#")[2] for _, reference in page.references if "run.html#" in reference]
        root = "../" if "/" in name else ""
        links = [reference for _, reference in page.references if "runs" in reference and "data" not in reference]
        assert [f"{root}{each}" for each in ("runs.html", "runs/2.html", "runs/3.html")] == [
            link for link in links if link.endswith(".html")
        ][1:]
    assert shown == ids
    assert not (site / "runs" / "4.html").exists()
    assert "runs 5 to 8 of 9" in (site / "runs" / "2.html").read_text("utf-8")
    assert not data(site)["searched"]


def test_no_list_of_pages_where_there_is_one(site: Path) -> None:
    assert "Pages of runs" not in (site / "runs.html").read_text("utf-8")
    assert not (site / "runs").exists()

"""Searches on the pages: the one on tuning, those of their runs, and the lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .test_pages import Page, pages

if TYPE_CHECKING:
    from ..conftest import Results

DIGITS, COUNT = "embedded/digits", "embedded/count"


def text(path: Path) -> str:
    """What a page shows, each element's text apart from the next one's."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")))


def test_every_reference_resolves_and_texts_are_escaped(tuned_results: Results, tmp_path: Path) -> None:
    site = tuned_results.build(tmp_path / "board")
    parsed = pages(site)
    for path, page in parsed.items():
        assert len(page.ids) == len(set(page.ids)), path
        for tag, _ in page.elements:
            assert tag not in ("b", "i", "u"), path
        for _, reference in page.references:
            if reference.startswith("https:"):
                continue
            name, _, fragment = reference.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_file(), f"{path}: {reference}"
            if target.name == "run.html" != path.name:
                assert fragment in {run.run_id for run in tuned_results.records}, f"{path}: {reference}"
            elif fragment and target.suffix == ".html":
                assert fragment in parsed[target].ids, f"{path}: {reference}"
    other = tuned_results.build(tmp_path / "again")
    assert all((other / path.relative_to(site)).read_bytes() == path.read_bytes() for path in parsed)


def test_the_page_on_tuning(tuned_results: Results, tmp_path: Path) -> None:
    site = tuned_results.build(tmp_path / "board")
    shown = text(site / "tuning.html")
    assert "6 trials in 3 studies, the default in each · by halton · 2 methods on 2 tasks" in shown
    assert "1 search lacks trials and is not counted here." in shown
    assert "biased estimator of Dodge et al. 2019" in shown
    assert "train on the training data alone" in shown
    page = Page((site / "tuning.html").read_text(encoding="utf-8"))
    assert sum(tag == "svg" for tag, _ in page.elements) == 1
    assert "lora reparameterized 2 1 under way 70.0 60.0 2.5 5.0 25.0% +4.0 12 min 4 s 4.0×" in shown
    assert "Without tuning, weird/&lt;b&gt; is first; tuned, weird/&lt;b&gt; is." in shown
    assert "In 1 of 3 studies alone the first place is another than by their median" in shown
    assert "default study 1 study 2 study 3 median weird/&lt;b&gt; 1 70.0 failed 1 74.0 1 74.0 1 74.0 lora 2" in shown


def test_no_page_without_searches(results: Results, tmp_path: Path) -> None:
    results.run("linear", DIGITS, 50.0)
    site = results.build(tmp_path / "board")
    assert not (site / "tuning.html").exists()
    assert all("tuning.html" not in path.read_text(encoding="utf-8") for path in site.rglob("*.html"))


def test_trials_alone_make_a_board(results: Results, tmp_path: Path) -> None:
    results.search("lora", DIGITS, [60.0, None], {})
    site = results.build(tmp_path / "board")
    assert "2 of the runs are trials of searches" in text(site / "index.html")
    assert "1 search lacks trials" in text(site / "tuning.html")


def test_lists_of_runs_tell_trials_from_what_they_chose(tuned_results: Results, tmp_path: Path) -> None:
    site = tuned_results.build(tmp_path / "board")
    shown = text(site / "runs.html")
    finals = [run for run in tuned_results.records if run.spec.tuning and not run.spec.is_trial]
    assert shown.count("tuned, ") == len(finals)
    [trial] = [
        r for r in tuned_results.records if r.trial and r.trial.validation == 70.0 and r.spec.method.name == "lora"
    ][:1]
    assert f"{trial.run_id} record lora embedded/vit embedded/digits 3 0 ok 70.0 – 2026-11-24 03:00" in shown


def test_the_tuned_row_says_what_its_studies_come_to(tuned_results: Results, tmp_path: Path) -> None:
    site = tuned_results.build(tmp_path / "board")
    html = (site / "index.html").read_text(encoding="utf-8")
    assert "tuned, 6 trials" in html
    assert re.findall(r">([^<]*)</span>", html).count("+4.0") == 2  # below the means of the two tuned rows
    shown = text(site / "methods" / "lora.html")
    assert "6 trials in 3 studies on each task; configurations differ from task to task." in shown
    assert "study 3: trial 1 learning_rate=0.001 rank=16 1: 63.0 2: 64.0 3: 65.0" in shown
    assert "study 1: trial 0 learning_rate=0.008 rank=8 1: 60.0 2: diverged 3: 60.0" in shown


def test_the_gain_stands_below_the_only_task_where_there_is_no_mean(results: Results, tmp_path: Path) -> None:
    results.run("lora", DIGITS, 60.0, config={"rank": 8})
    results.search("lora", DIGITS, [60.0], {0: (62.5, 62.5)}, budget=1, studies=1)
    html = (results.build(tmp_path / "board") / "index.html").read_text(encoding="utf-8")
    assert re.findall(r">([^<]*)</span>", html).count("+2.5") == 1

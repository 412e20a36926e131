"""Searches on the pages: the one on tuning, those of their runs, and the lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .test_pages import Page, pages

if TYPE_CHECKING:
    from ..conftest import Results

DIGITS, COUNT = "embedded/digits", "embedded/count"


@pytest.fixture
def tuned_results(results: Results) -> Results:
    for task in (DIGITS, COUNT, "embedded/groups"):
        results.task(task, "natural", chance_percent=10.0)
    results.method("lora", "reparameterized", defaults={"rank": 8})
    for method, test in (("lora", 60.0), ("weird/<b>", 70.0)):
        results.run(method, DIGITS, test, config={"rank": 8})
        results.run(method, COUNT, test, config={"rank": 8})
        for task in (DIGITS, COUNT):  # the studies, of trials 0, 2 and 0, 3 and 0, 1, choose 0, 3 and 1
            of_three = (test + 3, test + 4, test + 5)
            finals = {1: of_three, 0: (test, None, test), 3: of_three, 2: (99.0,)}
            results.search(method, task, [60.0, 65.25, None, 70.0], finals, studies=3)
    results.search("lora", "embedded/groups", [60.0], {}, studies=3)
    return results


def text(path: Path) -> str:
    """What a page shows, each element's text apart from the next one's."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")))


def page_of(site: Path, results: Results, **wanted: object) -> Path:
    """Of the first run whose spec is as wanted."""
    run = next(
        run
        for run in results.records
        if run.spec.method.name == "lora"
        and all(getattr(run.spec, key) == value for key, value in wanted.items())
        and run.spec.tuning
    )
    return site / "runs" / f"{run.run_id}.html"


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
            if fragment and target.suffix == ".html":
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


def test_pages_of_a_trial_and_of_a_final_run_show_their_search(tuned_results: Results, tmp_path: Path) -> None:
    site = tuned_results.build(tmp_path / "board")
    trial = page_of(site, tuned_results, trial=1, is_trial=True)
    shown = text(trial)
    assert "lora on embedded/digits, trial 1" in shown
    assert "A trial is measured on the validation split alone and stands in no table." in shown
    assert "validation (accuracy) 65.25% ; chance 10.0" in shown
    assert "1 learning_rate=0.001 rank=16 65.2 3, chosen by 3 1: 63.0 2: 64.0 3: 65.0" in shown
    assert "2 learning_rate=0.002 rank=16 diverged 1 1: 99.0" in shown
    assert (
        "peftmark run --method lora --backbone embedded/vit --task embedded/digits --seed 1 --seed 2 --seed 3 "
        "--trials 6 --studies 3 --protocol embedded-v1" in shown
    )
    final = page_of(site, tuned_results, trial=1, seed=2, is_trial=False)
    assert "Tests what a search of 6 trials chose: trial 1, learning rate 0.001" in text(final)
    assert "Repeat its search" in text(final)
    assert {reference for _, reference in Page(final.read_text(encoding="utf-8")).references} >= {trial.name}
    stale = page_of(site, tuned_results, trial=2, is_trial=False)
    assert "In no table: of a trial that its search no longer chooses." in text(stale)
    failed = page_of(site, tuned_results, trial=2, is_trial=True)
    assert "A trial is measured on the validation split alone" in text(failed)


def test_lists_of_runs_tell_trials_from_what_they_chose(tuned_results: Results, tmp_path: Path) -> None:
    site = tuned_results.build(tmp_path / "board")
    html = (site / "runs.html").read_text(encoding="utf-8")
    searched = re.findall(r'data-search="([^"]*)"', html)
    trials = [run for run in tuned_results.records if run.spec.is_trial]
    finals = [run for run in tuned_results.records if run.spec.tuning and not run.spec.is_trial]
    assert sum(words.endswith(" trial") for words in searched) == len(trials)
    assert sum(words.endswith(" tuned") for words in searched) == len(finals)
    assert "Validation" in html


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

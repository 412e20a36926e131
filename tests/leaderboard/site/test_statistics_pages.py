"""The pages of statistics, as files and in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peftmark.results import Store
from peftmark.results.predictions import predictions_file, write_predictions

if TYPE_CHECKING:
    from ..conftest import Results

TASKS = tuple(f"vtab/{number:02}" for number in range(12))


def fill(results: Results) -> None:
    """Twelve tasks, enough for a diagram, and a hostile name."""
    for place, task in enumerate(TASKS):
        for number, name in enumerate(("lora", "<b>$x_1", "adapter", "bitfit", "linear", "full")):
            for seed in (0, 1):
                results.run(name, task, 80.0 - 5 * number + place + 0.3 * ((place + seed + number) % 4), seed=seed)


def words(path: Path) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")).split())


def test_every_ranking_has_a_page_and_each_statistic_its_method_and_n(results: Results, tmp_path: Path) -> None:
    fill(results)
    site = results.build(tmp_path / "board")
    (page,) = (site / "statistics").glob("*.html")
    text = words(page)
    assert "lora is better than every other row, beyond noise." in text
    assert text.count("6 methods, 12 tasks, 2 seeds") >= 5
    assert "critical difference 2.18 ranks" in text  # 2.850 · √(6 · 7 / (6 · 12)): Demšar 2006, tables 5 and 3.2.2
    assert text.count("Withheld") == 1 and "Withheld: these runs kept no predictions" in text
    assert "<b>$x_1" not in page.read_text(encoding="utf-8")
    overview = words(site / "statistics.html")
    assert "image 6 12 2 lora 1 0 %" in overview


def test_what_few_tasks_do_not_carry_is_withheld_with_the_reason(full_results: Results, tmp_path: Path) -> None:
    site = full_results.build(tmp_path / "board")
    pages = sorted((site / "statistics").glob("*.html"))
    assert pages
    text = words(pages[0])
    assert "Withheld: 4 tasks are too few: mean ranks are near enough to normal with more than 10" in text


def test_predictions_are_compared_example_by_example(results: Results, tmp_path: Path) -> None:
    """On the first twenty of a hundred examples one is right alone, on the next ten the other."""
    target = np.arange(100) % 5
    right = {"lora": np.ones(100, bool), "adapter": np.ones(100, bool)}
    right["adapter"][:20], right["lora"][20:30] = False, False
    for name, its in right.items():
        for seed in (0, 1):
            run = results.run(name, "vtab/a", float(its.sum()), seed=seed)
            arrays = {"target": target, "predicted": np.where(its, target, target + 1)}
            write_predictions(predictions_file(Store(results.root).paths()[run.run_id]), {"test": arrays})
    (page,) = (results.build(tmp_path / "board") / "statistics").glob("*.html")
    text = words(page)
    assert re.search(r"adapter \+10\.0 [±+−]\d\.\d \+\d\d\.\d 0\.\d+ 0\.\d+ 100 ", text)
    assert "sign-flip test of paired test examples within tasks" in text

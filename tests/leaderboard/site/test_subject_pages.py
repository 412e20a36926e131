"""Pages of methods, tasks and backbones, and what the site says of itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from peftmark.results.predictions import predictions_file, write_predictions

from .test_pages import words

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import Results

PLACES = {"model": "embedded/vit", "blocks": 6, "parts": {"q": {"delta": 6}, "head": {"weight": 1}}}


def test_a_method_s_results_by_task_and_seed(results: Results, tmp_path: Path) -> None:
    results.task("vtab/a", "natural", chance_percent=10.0)
    results.method("lora", "reparameterized", "Low rank (Hu et al. 2022, arXiv:2106.09685).", places=PLACES)
    for seed, value in ((0, 70.0), (3, 72.0)):
        results.run("lora", "vtab/a", value, seed=seed, config={"rank": 8})
        results.run("linear", "vtab/a", 80.0, seed=seed)
        results.run("lora", "vtab/b", 30.0, seed=seed, config={"rank": 8})
        results.run("linear", "vtab/b", 20.0, seed=seed)
    site = results.build(tmp_path / "board")
    text = words(site / "methods" / "lora.html")
    assert "Task Mean ± Rank Chance seed 0 seed 3 vtab/a 71.0 1.4 2 of 2 10.0 70.0 72.0 vtab/b 30.0 0.0 1 of 2" in text
    command = "peftmark run --method lora --backbone embedded/vit --task vtab/a --task vtab/b --seed 0 --seed 3"
    assert f"{command} --protocol embedded-v1" in text
    assert "@misc{arXiv:2106.09685" in text
    assert "queries weight change added head weights train Found by adapting embedded/vit, 6 blocks" in text
    html = (site / "methods" / "lora.html").read_text()
    assert "<title>seed 3</title>" in html and html.count('class="line"') == 4  # two tasks, two seeds
    assert "add --import here" in text  # its card says that it is from elsewhere
    assert 'class="anatomy' not in (site / "methods" / "linear.html").read_text()  # its card is not there


def test_a_task_s_page(results: Results, tmp_path: Path) -> None:
    results.task("vtab/a", "natural", chance_percent=10.0, n_train=800)
    for number, value in enumerate((40.0, 50.0, 60.0)):
        results.run(f"m{number}", "vtab/a", value)
    site = results.build(tmp_path / "board")
    text = words(site / "tasks" / "vtab__a.html")
    assert "chance 10.0%" in text and "n train 800" in text
    assert "Middle half 45.0 to 55.0, median 50.0." in text
    assert re.search(r"1 m2 \w+ 60.0 1 1 2 m1 \w+ 50.0 1 2 3 m0 \w+ 40.0 1 3", text)
    assert '<img class="sample large" src="../pictures/vtab__a.png"' in (site / "tasks" / "vtab__a.html").read_text()
    assert "best on vit: m2 60.0" in words(site / "tasks.html")


def test_a_backbone_s_page(results: Results, tmp_path: Path) -> None:
    for number in range(6):
        results.run(f"m{number}", "vtab/a", 10.0 * number, backbone="timm/one")
        results.run(f"m{number}", "vtab/a", -10.0 * number, backbone="timm/other")
    results.cost("m1", 10**8, backbone="timm/bare")
    site = results.build(tmp_path / "board")
    text = words(site / "backbones" / "timm__one.html")
    assert re.search(r"1 m5 \w+ 50.0 1.0 k 2 m4", text)
    assert "timm/other embedded, version 1 −1.00 6 1" in text
    bare = words(site / "backbones" / "timm__bare.html")
    assert "What 1 rows of methods cost on it" in bare and "Nothing was run on it" in bare


def test_about(full_results: Results, tmp_path: Path) -> None:
    site = full_results.build(tmp_path / "board")
    text = words(site / "about.html")
    assert f"runs {len(full_results.records)}: " in text
    assert "files not read 2" in text and "0000000000000000.json is not a record" in text
    assert "@misc{peftmark" in text or "@software{peftmark" in text
    assert "DataTables" in text and "plotly.js" in text and "MIT" in text
    assert 'href="https://datatables.net' in (site / "about.html").read_text()


def test_what_was_predicted_on_the_task_s_page_and_on_that_of_calibration(results: Results, tmp_path: Path) -> None:
    run = results.run("lora", "vtab/a", 50.0)
    results.run("linear", "vtab/a", 40.0)
    without = words(results.build(tmp_path / "without") / "tasks" / "vtab__a.html")
    assert "Not known: no ranked row's runs kept one predicted label an example." in without
    assert not (tmp_path / "without" / "calibration.html").exists()
    arrays = {
        "predicted": np.array([0, 1]),
        "target": np.array([0, 2]),
        "probability_true": np.array([0.9, 0.05], dtype=np.float32),
        "probability_max": np.array([0.9, 0.9], dtype=np.float32),
    }
    write_predictions(predictions_file(results.root / f"{run.run_id}.json"), {"test": arrays})
    damaged = results.root / "predictions" / f"{results.run('full', 'vtab/a', 1.0).run_id}.npz"
    damaged.write_text("no archive")
    site = results.build(tmp_path / "board")
    text = words(site / "tasks" / "vtab__a.html")
    assert "1 ranked row kept what they predicted of 2 test examples. 1 of these is right by none." in text
    assert "Example Split True label Rows right Probability 1 test 2 0% 5.0% 0 test 0 100% 90.0%" in text
    calibration = words(site / "calibration.html")
    assert "1 of 3 ranked rows" in calibration and f"{damaged.name} holds no predictions" in calibration
    [cell] = re.findall(r'data-order="(39\.9\d*|40\.0\d*)"', (site / "calibration.html").read_text())
    assert float(cell) == pytest.approx(40.0, abs=1e-4)
    assert "calibration error 40.0 points" in words(site / "methods" / "lora.html")

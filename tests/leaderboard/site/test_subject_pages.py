"""Pages of methods, tasks and backbones, and what the site says of itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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

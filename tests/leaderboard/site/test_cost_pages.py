"""The pages of costs: what they say, where they lead, and that without cost records there are none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peftmark.results import decode_cost

if TYPE_CHECKING:
    from ..conftest import Results

GB = 10**9


def words(path: Path) -> str:
    """What a page says, without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")).split())


def row(page: Path, label: str) -> list[tuple[str, str, str]]:
    """The cells of the first row of a name: value, title and text."""
    text = page.read_text(encoding="utf-8")
    body = re.search(rf'<th scope="row"[^>]*data-order="{re.escape(label)}">.*?</tr>', text, re.DOTALL)
    assert body is not None, label
    cells = re.findall(
        r'<td class="number[^"]*" data-order="([^"]*)"(?: title="([^"]*)")?>(.*?)</td>', body[0], re.DOTALL
    )
    return [(value, title, re.sub(r"<[^>]*>", "", shown)) for value, title, shown in cells]


@pytest.fixture
def page(results: Results, tmp_path: Path) -> Path:
    """Of one backbone, with variants, two classes of hardware, and failures."""
    results.cost("full", 8 * GB, params=10**6, train_flops=6 * 10**12)
    results.cost("lora", 5 * GB, train_flops=3 * 10**12, merged=35_000_000_000)
    results.cost("lora", 2 * GB, precision="bfloat16")
    results.cost("broken", status="unsupported", message="needs <tokens>")
    results.cost("full", 8 * GB, hardware="cuda:small", status="oom", phase="memory", message="tried 9 GB")
    results.cost("lora", 5 * GB, hardware="cuda:small", measured=6 * GB, step_ms=134.0, merged_speed=True)
    results.cost("full", 8 * GB, hardware="cuda:large", measured=9 * GB, step_ms=200.0)
    return results.build(tmp_path / "board") / "efficiency" / "timm__vit_base_patch16_224.html"


def test_a_row_of_costs(page: Path) -> None:
    parameters, file, added, peak, full, plain, inference, forward, merged, step = row(page, "lora")
    assert (parameters[0], parameters[2]) == ("1000", "1.0 k0.10%")
    assert (file[0], file[2]) == ("6000", "6.0 kB")
    assert (added[0], inference[2]) == ("1000", "1.00 MB")
    assert (peak[0], peak[2]) == (str(5 * GB), "5.00 GB")
    assert (full[0], full[2]) == ("0.625", "0.62×")
    assert (plain[0], plain[2]) == ("", "–")
    assert (forward[2], merged[2]) == ("35.0", "35.0")
    assert (step[0], step[2]) == ("0.5", "0.50×")
    bfloat16 = row(page, "lora bfloat16")
    assert [cell[2] for cell in bfloat16[4:6]] == ["–", "0.40×"]  # full fine-tuning in bfloat16 is not known
    assert "is not known" in bfloat16[4][1]


def test_the_parts_of_the_peak_have_their_exact_numbers_and_a_bar(page: Path) -> None:
    title = row(page, "lora")[3][1]
    assert "5,000,000,000 bytes, estimated" in title
    for part in ("weights: 4,000,000 (0.08%)", "gradients: 2,000 (", "optimizer: 6,000 (", "inputs: 7 ("):
        assert part in title
    text = page.read_text(encoding="utf-8")
    bar = re.findall(r'<rect class="part-(\w+)" x="[\d.]+" y="0" width="([\d.]+)"', text)[:5]
    assert [part for part, _ in bar] == ["weights", "gradients", "optimizer", "activations", "inputs"]
    assert sum(float(width) for _, width in bar) == pytest.approx(100 * 5 / 8, abs=0.05)  # the longest is full's
    assert len(re.findall('class="part part-', text)) == 5  # the legend


def test_failures_are_cells_with_the_reason(page: Path) -> None:
    cells = row(page, "broken")
    assert cells[3] == ("", "unsupported in estimate: needs &lt;tokens&gt;", "unsupported")
    assert {cell[2] for place, cell in enumerate(cells) if place != 3} == {"–"}
    text = words(page)
    assert "1 row without figures: why broken: unsupported in estimate: needs &lt;tokens&gt;" in text
    assert "full: oom in memory: tried 9 GB" in text
    overview = row(page.parent.parent / "efficiency.html", "broken")
    assert overview == [("", "unsupported in estimate: needs &lt;tokens&gt;", "unsupported")]


def test_hardware_has_tables_of_its_own(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    large, small = (text.index(f"Measured on cuda:{name}</h3>") for name in ("large", "small"))
    assert large < small
    assert 'title="median of 4; quartiles 199 and 202 ms">200<' in text[large:small]
    assert 'title="median of 4; quartiles 133 and 136 ms">134<' in text[small:]
    assert ">lora</a>" not in text[large:small]
    assert "9.00 GB" in text[large:small] and "9.00 GB" not in text[small:] + text[:large]
    assert "measured is 1.20× of it" in text[small:]
    assert text[small:].count("status-oom") == 3  # speed and memory, and the reading aid


def test_records_are_there_to_read(results: Results, page: Path) -> None:
    site = page.parent.parent
    text = page.read_text(encoding="utf-8")
    for cost in results.costs:
        path = site / "costs" / f"{cost.cost_id}.json"
        assert decode_cost(path.read_bytes(), "copy") == cost
        assert f"../costs/{cost.cost_id}.json" in text


def test_the_method_s_page_has_its_costs(page: Path) -> None:
    text = words(page.parent.parent / "methods" / "lora.html")
    assert (
        "timm/vit_ base_ patch16_ 224 batch 64, 3×224×224, 100 classes 1.0 k 5.00 GB 0.62× 1.00 MB 35.0 0.50×" in text
    )
    assert "100 classes bfloat16 1.0 k 2.00 GB – 1.00 MB 35.0 –" in text
    assert "Results" not in text
    assert "unsupported in estimate: needs" in words(page.parent.parent / "methods" / "broken.html")


def test_without_runs_the_board_leads_with_efficiency(page: Path) -> None:
    site = page.parent.parent
    text = words(site / "index.html")
    assert "Parameter-efficient fine-tuning in vision: efficiency" in text
    assert "What 3 method configurations cost on 1 backbone" in text
    assert "0 runs and 7 cost records" in text
    assert not (site / "runs.html").exists() and not (site / "tasks.html").exists()
    assert not (site / "scaling.html").exists()  # one size makes no ladder


def test_without_costs_nothing_is_said_of_them(results: Results, tmp_path: Path) -> None:
    results.run("lora", "vtab/a", 50.0)
    site = results.build(tmp_path / "board")
    assert not [path for name in ("efficiency", "scaling", "costs") for path in site.glob(f"{name}*")]
    for path in site.rglob("*.html"):
        said = words(path).lower()
        assert not [word for word in ("memory", "efficiency", "cost", "scaling") if word in said], path


def test_runs_and_costs_side_by_side(full_results: Results, tmp_path: Path) -> None:
    site = full_results.build(tmp_path / "board")
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "of 6 methods on 7 tasks\nand 2 backbones, each" in text  # those of the runs
    cells = row(site / "index.html", "lora")
    memory = cells[3]  # behind the mean, parameters and what is stored
    assert (memory[0], memory[2]) == ("0.5", "0.50×")
    other = row(site / "index.html", "lora rank=16")
    assert other[3] == ("", "", "–")
    scaling = (site / "scaling.html").read_text(encoding="utf-8")
    assert ">0.50</td>" in scaling and scaling.count("<svg") == 3
    assert ">Memory</span>" in text
    assert ">Memory</span>" not in (site / "track-video.html").read_text(encoding="utf-8")

"""Figures for papers: their size, fonts and names, and the same bytes every time."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from matplotlib.text import Annotation
from PIL import Image

from peftmark.leaderboard.accuracy.tradeoffs import Tradeoff, main_tradeoffs
from peftmark.leaderboard.drawings.svg import COLOURS, light_colours
from peftmark.leaderboard.drawings.tradeoffs import WIDTHS, draw, paper_style, write_figure

if TYPE_CHECKING:
    from ..conftest import Results

HOSTILE = ("<script>alert(1)</script>", "$x_1$ & <b>", "a\x00\u202eb\nc", "z" * 5_000, "中文")


def chart(results: Results, parameters: list[int], spread: float = 0.0) -> Tradeoff:
    dice = random.Random(0)
    for number, count in enumerate(parameters):
        figure = 50 + 20 * dice.random()
        for seed in (0, 1):
            results.run(f"method_{number}", "vtab/a", figure + seed * spread, seed=seed, params=count)
    return main_tradeoffs(results.table())[0]


@pytest.mark.parametrize("width", list(WIDTHS))
@pytest.mark.parametrize("every_name", [False, True])
def test_no_name_covers_another(results: Results, width: str, every_name: bool) -> None:
    """As measured by what draws them, in a crowd of forty."""
    crowd = chart(results, [0, 0, *(round(10 ** (3 + 1.5 * i / 38)) for i in range(38))])
    with paper_style():
        drawing = draw(crowd, width, every_name)
        [axes] = drawing.axes
        boxes = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
        frame = axes.get_window_extent()
        assert len(boxes) > (8 if every_name else 2)
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 for box in boxes)
        names = {text.get_text() for text in axes.texts}
    on_front = {point.label for point in crowd.points if point.on_front}
    assert names <= on_front or every_name


@pytest.mark.parametrize(
    "parameters", [[0], [7], [0, 0], [0, 1_000], [1, 10**8], [5_000, 6_000], [0, 85_800_000, 300_000]], ids=str
)
def test_any_counts(results: Results, tmp_path: Path, parameters: list[int]) -> None:
    path = tmp_path / "x.svg"
    write_figure(chart(results, parameters), "column", [path], every_name=True)
    assert "method_0" in path.read_text()


def test_formats(results: Results, tmp_path: Path) -> None:
    some = chart(results, [0, 100, 20_000], spread=1.0)
    for width, inches in WIDTHS.items():
        first, again = ([tmp_path / f"{turn}-{width}.{kind}" for kind in ("svg", "pdf", "png")] for turn in "ab")
        write_figure(some, width, first)
        write_figure(some, width, again)
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
        svg, pdf, png = first
        root = ElementTree.fromstring(svg.read_text())
        assert root.attrib["width"] == f"{72 * inches:g}pt"
        assert "method_0" in [
            "".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")
        ]
        assert re.search(rb"/Subtype /Type0|/Type42|/FontFile2", pdf.read_bytes())  # text that can be selected
        assert b"/Type3" not in pdf.read_bytes() and b"CreationDate" not in pdf.read_bytes()
        with Image.open(png) as image:
            assert image.width == round(300 * inches)
            assert round(image.info["dpi"][0]) == 300


def test_hostile_names_are_text(results: Results, tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        results.run(name, "vtab/<i>a", 50.0 + number, params=10 ** (2 * number))
    results.method(HOSTILE[1], "family <i>")
    svg, pdf = tmp_path / "x.svg", tmp_path / "x.pdf"
    write_figure(main_tradeoffs(results.table())[0], "text", [svg, pdf], every_name=True)
    root = ElementTree.fromstring(svg.read_text())
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>alert(1)</script>" in texts and "$x_1$ & <b>" in texts and "ab c" in texts and "family <i>" in texts
    assert not [element for element in root.iter() if element.tag.rpartition("}")[2] in ("script", "b", "i", "a")]
    assert max(map(len, texts)) < 100


def test_colours_are_the_style_sheet_s() -> None:
    assert set(COLOURS) <= set(light_colours())

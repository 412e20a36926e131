"""The overview in a browser: filters, budgets, columns, comparison, what is taken away, and the view in the address."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver

from .test_browser import eventually, pytestmark, started

if TYPE_CHECKING:
    from ..conftest import Results

__all__ = ["pytestmark"]

HOSTILE = "<img src=x onerror='globalThis.ran=true'>\u202e\"'"


class View:
    """A page of the site and what a person would see of it."""

    def __init__(self, driver: webdriver.Chrome, site: Path) -> None:
        self.driver, self.site = driver, site

    def open(self, address: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(self.site.as_uri() + "/" + address)
        assert self.driver.get_log("browser") == [], address

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {script}", *arguments)

    def do(self, script: str, *arguments: Any) -> None:
        self.driver.execute_script(script, *arguments)

    @property
    def rows(self) -> list[str]:
        """Rank and name of the rows that are shown."""
        script = """[...document.querySelectorAll("article:not([hidden]) tbody tr[id]")].map((row) =>
            `${row.querySelector(".rank").firstChild.textContent} ${row.querySelector("th").dataset.order}`)"""
        return list(self.ask(script))

    @property
    def heads(self) -> list[str]:
        return list(self.ask("[...document.querySelectorAll('article thead [data-column]')].map((e) => e.textContent)"))

    @property
    def address(self) -> str:
        return str(self.ask("location.hash"))

    def choose(self, name: str, value: str) -> None:
        self.do(
            """const field = document.querySelector(`.controls [name="${arguments[0]}"]`);
            field.value = arguments[1];
            for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));""",
            name, value,
        )  # fmt: skip

    def tick(self, *labels: str) -> None:
        for label in labels:
            self.do('document.querySelector(`.tick input[aria-label="Compare ${arguments[0]}"]`).click()', label)

    def shows(self, *rows: str) -> None:
        eventually(self.driver, lambda: self.rows, list(rows))


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    from ..conftest import Results

    folder = tmp_path_factory.mktemp("overview")
    results = Results(folder / "results")
    fill(results)
    site = results.build(folder / "board")
    driver = started(folder / "profile")
    try:
        yield View(driver, site)
    finally:
        driver.quit()


def fill(results: Results) -> None:
    groups = {"a": "natural", "b": "natural", "c": "structured", "d": "structured", "e": "structured"}
    for task, group in groups.items():
        results.task(f"vtab/{task}", group, chance_percent=10.0)
    results.method("full", "baseline", "All (Doe 2019, arXiv:1906.00001).")
    results.method("lora", "reparameterized", "Low rank (Hu et al. 2022, arXiv:2106.09685).")
    results.method("bitfit", "selective", "Biases.")
    figures = {"full": (1_000_000, 50.0, 70.0), "lora": (3_000, 60.0, 60.0), "bitfit": (1_000, 55.0, 50.0)}
    for name, (parameters, natural, structured) in figures.items():
        for place, (task, group) in enumerate(groups.items()):
            for seed in (0, 1):
                test = (natural if group == "natural" else structured) + 0.1 * ((place + seed) % 2)
                results.run(name, f"vtab/{task}", test, seed=seed, params=parameters)
    results.run(HOSTILE, "vtab/a", status="error", message=HOSTILE)
    results.run("lora", "vtab/a", 41.0, backbone="timm/other", params=3_000)


def test_a_budget_hides_what_is_over_it_and_what_is_not_known(view: View) -> None:
    view.open("index.html")
    assert view.rows[:3] == ["1 full", "2 lora", "3 bitfit"]
    slider = "document.querySelector('[name=parameters]')"
    assert view.ask(f"[{slider}.max, {slider}.getAttribute('aria-valuetext')]") == ["3", "any"]
    view.choose("parameters", "1")
    view.shows("2 lora", "3 bitfit", "1 lora")  # the last one is on the other backbone
    assert view.ask(f"{slider}.getAttribute('aria-valuetext')") == "≤ 3.0 k"
    assert view.address == "#max.parameters=3000"
    assert view.ask("document.querySelector('[data-shown]').textContent") == "3 of 5 rows"


def test_a_view_can_be_sent(view: View) -> None:
    view.open("index.html#search=o&backbone=embedded%2Fvit&group=natural&sort=method%7Cdesc&columns=memory")
    assert view.ask("document.querySelector('[name=search]').value") == "o"
    assert view.ask("document.querySelector('[name=group]').value") == "natural"
    assert view.rows[0] == "1 lora" and "3 full" not in view.rows
    view.do("document.querySelector('[data-reset]').click()")
    view.shows("1 full", "2 lora", "3 bitfit", f"– {HOSTILE}", "1 lora")
    assert view.address == ""


def test_a_group_of_tasks_ranks_by_its_own_mean_and_hides_the_others(view: View) -> None:
    view.open("index.html")
    view.choose("group", "natural")
    view.shows("1 lora", "2 bitfit", "3 full", f"– {HOSTILE}", "1 lora")
    assert "c" not in view.heads and "a" in view.heads
    view.choose("group", "")
    view.shows("1 full", "2 lora", "3 bitfit", f"– {HOSTILE}", "1 lora")
    assert "c" in view.heads


def test_columns_are_picked(view: View) -> None:
    view.open("index.html")
    assert "Stored" in view.heads
    view.do("[...document.querySelectorAll('#columns label')].find((e) => e.textContent.trim() === 'Stored').click()")
    assert "Stored" not in view.heads
    assert view.address == "#columns=stored"
    view.open(f"index.html{view.address}")
    assert "Stored" not in view.heads


def test_rows_side_by_side_have_paired_differences_with_intervals(view: View) -> None:
    view.open("index.html")
    view.tick("lora")
    assert "tick another row" in view.ask("document.querySelector('.chosen-rows').textContent")
    assert view.ask("document.getElementById('comparison').hidden")
    view.tick("bitfit")
    lines = view.ask(
        "[...document.querySelectorAll('#comparison tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    by_task = {line[0]: line[1:] for line in lines}
    assert by_task["natural: mean"] == ["60.0", "55.0", "−5.0"]
    mean = by_task["Mean"]
    assert mean[:2] == ["60.0", "52.0"] and mean[2].startswith("−8.0") and " to " in mean[2]
    assert by_task["vtab/c"][2].startswith("−10.0")
    assert "hierarchical bootstrap over tasks" in view.ask("document.querySelector('#comparison .note').textContent")
    address = view.address
    view.open(f"index.html{address}")
    assert view.ask("document.querySelectorAll('.tick input:checked').length") == 2
    view.do("document.querySelector('.chosen-rows button').click()")
    assert view.ask("document.getElementById('comparison').hidden") and view.address == ""


def test_what_is_shown_is_what_is_taken(view: View) -> None:
    view.open("index.html#backbone=embedded%2Fvit&max.parameters=3000&columns=coverage")
    view.do("peftmark.download = (name, text) => { globalThis.taken = [name, text]; }")
    view.do("document.querySelector('[data-take=csv]').click()")
    name, text = view.ask("globalThis.taken")
    assert name == "peftmark-image.csv"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["rank"], row["method"], row["parameters"]) for row in rows] == [
        ("2", "lora", "3000"),
        ("3", "bitfit", "1000"),
    ]
    assert float(rows[0]["task:vtab/a"]) == pytest.approx(60.05) and rows[0]["task:vtab/a seeds"] == "2"
    assert float(rows[0]["mean low"]) < float(rows[0]["mean"]) < float(rows[0]["mean high"])
    assert "succeeded" not in rows[0]
    view.do("document.querySelector('[data-take=bibtex]').click()")
    name, text = view.ask("globalThis.taken")
    assert name == "peftmark.bib" and text.count("@") == 2 and "2106.09685" in text and "1906" not in text
    view.do("document.querySelector('[data-take=json]').click()")
    (table,) = json.loads(view.ask("globalThis.taken")[1])
    assert [row["method"] for row in table["rows"]] == ["lora", "bitfit"]


def test_a_spreadsheet_takes_no_text_for_a_formula(view: View) -> None:
    view.open("index.html")
    text = view.ask("peftmark.csv([['=1+1', '-2', -2, 'a,\"b\"\\n']])")
    assert next(csv.reader(io.StringIO(text, newline=""))) == ["'=1+1", "'-2", "-2", 'a,"b"\n']


def test_hostile_texts_are_texts(view: View) -> None:
    view.open(f"index.html#search={quote('<img')}&compare={quote('<img>,x')}&sort=%3Cb%3E&columns={quote('<b>')}")
    view.shows(f"– {HOSTILE}")
    assert view.ask("document.querySelectorAll('main img[src=x]').length") == 0
    assert view.ask("globalThis.ran") is None


def test_every_page_opens_from_a_file_and_loads_nothing_else(view: View) -> None:
    for page in sorted(view.site.rglob("*.html")):
        view.open(quote(str(page.relative_to(view.site))))
        loaded = view.ask("performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert [name for name in loaded if not name.startswith("file:")] == [], page
        assert view.ask("globalThis.ran") is None, page

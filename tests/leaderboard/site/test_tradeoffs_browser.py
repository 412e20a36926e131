"""The page of trade-offs in a browser: what is drawn, told, kept in the address and led to."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from peftmark.leaderboard.accuracy.tradeoffs import front
from peftmark.leaderboard.summary import ranks

from ..conftest import Results
from .test_browser import CHROMIUM, DRIVER, FLAGS, eventually, pytestmark  # noqa: F401

HOSTILE = (
    "<script>alert(1)</script>",
    '<b>bold</b> <a href="https://example.org">there</a><br>&lt;',
    "%{x} $y_1$",
    "a\u202edcb",
    "z" * 5_000,
)


def fill(results: Results) -> None:
    """Forty methods in a crowd, ties among them; hostile ones; tuned rows; a table of which less is better."""
    draw = random.Random(1)
    families = ("additive", "selective", "reparameterized", "<i>family")
    for name in ("digits", "count"):
        results.task(f"embedded/{name}", "natural")
    results.task("plugin/angles", "natural")
    for number in range(40):
        method = f"method_{number}"
        if number < len(HOSTILE):
            method = HOSTILE[number]  # has no card, for that would be a file of this name
        else:
            results.method(method, families[number % 4], "A method.", defaults={"rank": 8})
        params = 0 if number < 2 else round(10 ** (3 + 0.05 * number))
        figure = round(50 + 20 * draw.random()) if number else 55.0
        for task, seed in itertools.product(("digits", "count"), (0, 1)):
            results.run(method, f"embedded/{task}", figure + seed, seed=seed, params=params, head=0, config={"rank": 8})
    for task in ("digits", "count"):
        results.search("method_7", f"embedded/{task}", [50.0] * 6, {0: [90.0, 91.0]}, studies=1, params=2_000)
        results.search("method_8", f"embedded/{task}", [50.0] * 6, {0: [80.0, 81.0]}, studies=1, params=9_000)
    for name, error in (("method_7", 2.0), ("method_8", 1.0), ("method_9", 3.0)):
        params = int(name[-1]) * 10
        results.run(name, "plugin/angles", error, unit="rad <b>", higher_is_better=False, params=params)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tradeoffs")
    results = Results(folder / "results")
    fill(results)
    return results.build(folder / "board")


@pytest.fixture(scope="module")
def started(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def browser(started: webdriver.Chrome, site: Path) -> Iterator[webdriver.Chrome]:
    """The page as it opens; nothing may have been refused or gone wrong when a test is over."""
    visit(started, site)
    yield started
    assert started.get_log("browser") == []


def visit(browser: webdriver.Chrome, site: Path, state: str = "") -> None:
    browser.get("about:blank")  # another address of the same page would not load it
    browser.get(f"{(site / 'tradeoffs.html').as_uri()}{state}")


def choose(browser: webdriver.Chrome, name: str, text: str) -> None:
    Select(browser.find_element(By.NAME, name)).select_by_visible_text(text)


def drawn(browser: webdriver.Chrome) -> dict[str, Any]:
    """The traces and layout, as Plotly has them."""
    script = "const {data, layout} = document.querySelector('.chart'); return JSON.stringify({data, layout})"
    return dict(json.loads(browser.execute_script(script)))


def points(browser: webdriver.Chrome) -> int:
    return sum(len(trace["x"]) for trace in drawn(browser)["data"] if trace["name"] == "points")


def told(browser: webdriver.Chrome) -> list[list[str]]:
    """The table below the chart."""
    script = """return [...document.querySelectorAll('#figures tbody tr')].map(
        (row) => [...row.cells].map((cell) => cell.textContent))"""
    return list(browser.execute_script(script))


def test_fronts_and_ranks_are_python_s(browser: webdriver.Chrome) -> None:
    draw = random.Random(2)
    for size in (*range(5), 30):
        for sign in (1, -1):
            places = [(draw.choice((0, 1, 10, 100)), draw.randint(-5, 5)) for _ in range(size)]
            script = "return peftmark.geometry.front(arguments[0], arguments[1])"
            assert browser.execute_script(script, places, sign) == front([(x, sign * y) for x, y in places])
            values = [y for _, y in places]
            script = "return peftmark.geometry.ranks(arguments[0], arguments[1])"
            assert browser.execute_script(script, values, sign) == ranks([sign * value for value in values])
    axis = "const {place, range, ticks} = peftmark.geometry.axis(arguments[0], arguments[1]);"
    script = f"{axis} return [arguments[0].map(place), ticks(...range, 9)]"
    [[zero, low, high], ticks] = browser.execute_script(script, [0, 1_000, 100_000], True)
    assert (low, high) == (3, 5) and zero <= 2.5
    assert [text for _, text in ticks if not text.startswith(("2", "5"))] == ["0", "1 k", "10 k", "100 k"]
    [_, ticks] = browser.execute_script(script, [0.5], False)
    assert len(ticks) > 2


def test_rankings_have_fronts_of_their_own(browser: webdriver.Chrome) -> None:
    fronts = [trace for trace in drawn(browser)["data"] if trace["name"] == "front"]
    assert [trace["line"]["dash"] for trace in fronts] == ["solid", "dash"]
    assert max(fronts[0]["y"]) < 75 < 90 < max(fronts[1]["y"])
    symbols = {trace["marker"]["symbol"] for trace in drawn(browser)["data"] if trace["name"] == "points"}
    assert {"square", "diamond", "triangle-up", "hexagon"} < symbols  # a shape for each family
    assert any(symbol.endswith("-open") for symbol in symbols)
    assert points(browser) == 42
    assert "tuned, 6 trials" in browser.find_element(By.CSS_SELECTOR, "[data-rankings]").text

    said = browser.find_element(By.CSS_SELECTOR, "[data-front]").text
    assert "of 40 (default) on the front: " in said and "1 of 2 (tuned, 6 trials) on the front: method_7." in said

    choose(browser, "tuning", "tuned, 6 trials")
    assert points(browser) == 2
    choose(browser, "tuning", "default")
    assert points(browser) == 40
    browser.find_element(By.CSS_SELECTOR, "[data-family=additive]").click()
    assert points(browser) == 8
    assert {row[2] for row in told(browser)} == {"additive"}
    of_additive = {row[0] for row in told(browser)}
    assert len(of_additive) > 1 and max(map(int, of_additive)) > 10  # ranks are among all of the ranking
    browser.find_element(By.CSS_SELECTOR, "[data-reset]").click()
    assert points(browser) == 42 and "#" not in browser.current_url


def test_lower_is_better(browser: webdriver.Chrome) -> None:
    choose(browser, "protocol", "embedded, version 1 · rad <b>")
    [line] = [trace for trace in drawn(browser)["data"] if trace["name"] == "front"]
    assert line["y"][:2] == [2.0, 1.0]
    assert [(row[0], row[-1]) for row in told(browser)] == [("1", "yes"), ("2", "yes"), ("3", "")]
    assert "rad <b> (lower is better)" in browser.find_element(By.CSS_SELECTOR, ".ytitle").text.replace("\u2068", "")


BOXES = """return [...document.querySelectorAll('.chart .annotation-text')].map((text) => {
    const {left, top, right, bottom} = text.getBoundingClientRect(); return [left, top, right, bottom]; })"""
MARKS = """return [...document.querySelectorAll('.chart .scatterlayer .points path')].map((mark) => {
    const {left, top, right, bottom} = mark.getBoundingClientRect(); return [left, top, right, bottom]; })"""


@pytest.mark.parametrize("width", [400, 1280, 2200])
def test_names_never_collide(browser: webdriver.Chrome, site: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        visit(browser, site, "#names=all")
        boxes, marks = browser.execute_script(BOXES), browser.execute_script(MARKS)
        assert len(marks) == 42 and len(boxes) >= 10
        for one, other in itertools.combinations(boxes, 2):
            assert not covers(one, other)
        for box, mark in itertools.product(boxes, marks):
            assert not covers(box, [mark[0] + 1, mark[1] + 1, mark[2] - 1, mark[3] - 1])
        assert all(box[0] >= 0 and box[2] <= width for box in boxes)
        chart = browser.find_element(By.CSS_SELECTOR, ".chart .main-svg")
        assert width - 100 < chart.size["width"] <= width
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(wide) == 0
        left = f"{42 - len(boxes)} names have no room"
        assert (left in browser.find_element(By.CSS_SELECTOR, "[data-hidden]").text) == (len(boxes) < 42)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def covers(one: list[float], other: list[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def hovered(browser: webdriver.Chrome, method: str) -> str:
    """What is said of a method's mark, as it is shown."""
    script = """const chart = document.querySelector('.chart');
        const says = (text) => text.includes(arguments[0]);
        const curveNumber = chart.data.findIndex(({hovertext}) => hovertext?.some(says));
        Plotly.Fx.hover(chart, [{curveNumber, pointNumber: chart.data[curveNumber].hovertext.findIndex(says)}]);
        const said = () => [...document.querySelectorAll('.hoverlayer .hovertext')].map((each) => each.textContent);
        setTimeout(() => arguments[1](said().join('')), 300); // it is drawn a moment later"""
    return str(browser.execute_async_script(script, method)).replace("\u2068", "").replace("\u2069", "")


def test_names_are_text(browser: webdriver.Chrome, site: Path) -> None:
    visit(browser, site, "#names=all&tuning=default")
    assert "<script>alert(1)</script>" in hovered(browser, "alert(1)")
    said = hovered(browser, "bold")
    assert '<b>bold</b> <a href="https://example.org">there</a><br>&lt' in said
    assert "%{x} $y_1$" in hovered(browser, "y_1")
    assert len(hovered(browser, "zzzz")) < 500
    said = hovered(browser, "method_5")
    assert "selective" in said and "mean over 2 tasks: " in said and " ± 0.7%, 2 seeds" in said and "of 40" in said
    shown = {each.text.strip("\u2068\u2069") for each in browser.find_elements(By.CSS_SELECTOR, ".annotation-text")}
    assert "<script>alert(1)</script>" in shown
    for tag in ("a[href^=https]", "script:not([src])", ".chart b", ".chart i", ".controls i"):
        assert browser.find_elements(By.CSS_SELECTOR, tag) == [], tag
    names = [row[1] for row in told(browser)]
    assert set(HOSTILE) <= set(names)
    assert "<i>family" in browser.find_element(By.CSS_SELECTOR, ".families").text


def test_a_view_is_its_address(browser: webdriver.Chrome, site: Path) -> None:
    choose(browser, "y", "embedded/digits")
    choose(browser, "x", "Stored")
    choose(browser, "names", "none")
    browser.find_element(By.CSS_SELECTOR, "[data-family='<i>family']").send_keys(Keys.ENTER)
    state = browser.current_url.partition("#")[2]
    before = (drawn(browser)["layout"]["xaxis"]["title"], told(browser))
    assert "stored bytes" in before[0]["text"] and len(before[1]) == 10
    assert browser.execute_script(BOXES) == []
    visit(browser, site, f"#{state}")
    assert (drawn(browser)["layout"]["xaxis"]["title"], told(browser)) == before
    assert Select(browser.find_element(By.NAME, "x")).first_selected_option.text == "Stored"
    command = browser.find_element(By.CSS_SELECTOR, "[data-command]").get_attribute("textContent")
    assert "--x stored --y task:embedded/digits" in str(command)
    visit(browser, site, f"#table=none&x={quote('<b>')}&y=none&tuning=none&names=none&family=none")
    assert points(browser) == 42  # what there is not is as if it were not said


def test_colours_follow_the_scheme(browser: webdriver.Chrome) -> None:
    def colours() -> set[str]:
        return {trace["marker"]["color"] for trace in drawn(browser)["data"] if trace["name"] == "points"}

    assert "#1f66ad" in colours()
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        eventually(browser, lambda: "#74b0f0" in colours() and "#1f66ad" not in colours(), True)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_click_leads_to_the_row(browser: webdriver.Chrome, site: Path) -> None:
    choose(browser, "tuning", "tuned, 6 trials")
    [first, _] = [row for row in browser.execute_script("return peftmark.data.tables[0].rows") if row["ranking"] == 1]
    assert first["method"] == "method_7"
    mark = min(browser.execute_script(MARKS), key=lambda box: box[0])  # the one of fewer parameters
    middle = round((mark[0] + mark[2]) / 2), round((mark[1] + mark[3]) / 2)
    chains = ActionChains(browser)
    chains.w3c_actions.pointer_action.move_to_location(*middle)
    chains.perform()
    eventually(browser, lambda: bool(browser.find_elements(By.CSS_SELECTOR, ".hoverlayer .hovertext")), True)
    chains = ActionChains(browser)
    chains.w3c_actions.pointer_action.move_to_location(*middle).click()
    chains.perform()
    eventually(browser, lambda: browser.current_url.endswith(first["href"]), True)
    assert (site / first["href"].partition("#")[0]).is_file()


def test_zoom_gives_names_room_and_can_be_left(browser: webdriver.Chrome, site: Path) -> None:
    visit(browser, site, "#names=all")
    whole = drawn(browser)["layout"]["xaxis"]["range"]
    box = browser.find_element(By.CSS_SELECTOR, ".chart .nsewdrag").rect
    start = round(box["x"] + 0.5 * box["width"]), round(box["y"] + 0.4 * box["height"])
    chains = ActionChains(browser, duration=50)
    chains.w3c_actions.pointer_action.move_to_location(*start).pointer_down()
    chains.w3c_actions.pointer_action.move_to_location(start[0] + 200, start[1] + 150).pointer_up()
    chains.perform()
    eventually(browser, lambda: drawn(browser)["layout"]["xaxis"]["range"] != whole, True)
    low, high = drawn(browser)["layout"]["xaxis"]["range"]
    assert whole[0] < low < high < whole[1]
    browser.find_element(By.CSS_SELECTOR, "[data-whole]").click()
    eventually(browser, lambda: drawn(browser)["layout"]["xaxis"]["range"], whole)


def test_what_is_taken_away_is_what_is_shown(browser: webdriver.Chrome, site: Path) -> None:
    visit(browser, site, "#tuning=default&x=stored")
    browser.find_element(By.CSS_SELECTOR, "#papers summary").click()
    browser.execute_script("globalThis.taken = []; peftmark.download = (...file) => taken.push(file)")
    browser.find_element(By.CSS_SELECTOR, "[data-csv]").click()
    browser.find_element(By.CSS_SELECTOR, "[data-svg]").click()
    eventually(browser, lambda: browser.execute_script("return taken.length"), 2)
    (_, table, _), (_, drawing, kind) = browser.execute_script("return taken")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == 40 and {row["method"] for row in rows} > set(HOSTILE) - {HOSTILE[-1]}
    [seventh] = [row for row in rows if row["method"] == "method_7"]
    assert float(seventh["stored"]) == 4 * round(10 ** (3 + 0.05 * 7)) and seventh["seeds"] == "2"
    assert kind == "image/svg+xml" and drawing.startswith("<svg") and "<script" not in drawing
    names = {str(link.get_dom_attribute("href")) for link in browser.find_elements(By.CSS_SELECTOR, "[data-files] a")}
    assert len(names) == 1 and all((site / name).is_file() for name in names)


def test_without_scripts_there_is_a_drawing_and_a_table(site: Path) -> None:
    text = (site / "tradeoffs.html").read_text(encoding="utf-8")
    static = text[text.index("<noscript>") : text.index("</noscript>")]
    drawings = sorted(path.name for path in (site / "figures").iterdir())
    assert len(drawings) == 3 and all(f'src="figures/{name}"' in static for name in drawings)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in static and "<script" not in static

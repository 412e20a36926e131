"""The page of a run and the table of all of them, drawn by a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from peftmark.results import decode_record

from .test_browser import CHROMIUM, DRIVER, FLAGS
from .test_tuning_pages import DIGITS

if TYPE_CHECKING:
    from peftmark.results import RunRecord

    from ..conftest import Results

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver: apt-get install chromium chromium-driver"
    ),
]

HOSTILE = "<script>globalThis.ran = true</script><img src=x onerror='globalThis.ran = true'>"


class Browser:
    """A browser that opens pages of a site, and tells what they say."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.site = Path()

    def open(self, address: str) -> None:
        """A page of the site; nothing on it may have failed."""
        self.driver.get("about:blank")
        self.driver.get(f"{(self.site / 'index.html').as_uri()[: -len('index.html')]}{address}")
        assert self.driver.get_log("browser") == []

    def run(self, record: RunRecord) -> str:
        self.open(f"run.html#{record.run_id}")
        self.wait(f"return document.getElementById('run').dataset.shown === '{record.run_id}'")
        assert self.driver.get_log("browser") == []
        return self.text("#run")

    def wait(self, script: str) -> None:
        WebDriverWait(self.driver, 20, 0.05).until(lambda driver: driver.execute_script(script))

    def until(self, holds: Callable[[], bool]) -> None:
        """DataTables does what it is told to after a click, not in it."""
        WebDriverWait(self.driver, 20, 0.05).until(lambda _: holds())

    def text(self, selector: str) -> str:
        return " ".join(str(self.driver.find_element(By.CSS_SELECTOR, selector).text).split())

    def column(self, index: int) -> list[str]:
        rows = self.driver.find_elements(By.CSS_SELECTOR, "#runs tbody tr")
        return [row.find_elements(By.CSS_SELECTOR, "td")[index].text for row in rows]

    @property
    def address(self) -> dict[str, list[str]]:
        return parse_qs(self.driver.execute_script("return location.hash.slice(1)"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield made
    finally:
        made.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome) -> Browser:
    return Browser(driver)


def test_all_that_a_record_says(browser: Browser, results: Results, tmp_path: Path) -> None:
    results.task("vtab/a", "natural", chance_percent=10.0)
    results.method("lora", "reparameterized")
    record = results.run("lora", "vtab/a", 71.128, config={"alpha": 8.0, "ranks": [], "targets": ["q", "<v>"]})
    results.run("lora", "vtab/a", 69.5, config=record.spec.method.config, seed=1)
    results.cost("lora", 4 * 10**8, backbone="embedded/vit", config=record.spec.method.config)
    browser.site = results.build(tmp_path / "board")
    text = browser.run(record)
    assert browser.driver.title == "lora on vtab/a, seed 0 · peftmark"
    for said in (
        f"ok reparameterized embedded/vit · embedded, version 1 · run {record.run_id} · record as JSON",
        "On the board in the row of rank 1. What it costs. The cell is 70.3 ±1.2, from seed 0: 71.1 seed 1: 69.5",
        "Repeat it peftmark run --method lora --backbone embedded/vit --task vtab/a --seed 0",
        "test (accuracy) 71.13% on 100 samples; chance 10.0",
        f"validation 50.00% predictions {record.quality.predictions_sha256}",
        "trainable 1,500 without head 1,000 stored 1,500 added at inference 1,000 total 1,001,500 adapter file 6.0 kB",
        "setup 0.50 s data 0.00 s train 1 min 30 s evaluation 0.00 s tuning 0.00 s",
        "hardware cpu:two cores, cpu, 1 thread torch, Python 2.14.1, 3.11.9 source 0123456789abcdef with changes",
        "Training loss",
        'Specification { "method": { "name": "lora", "version": 1, "config": { "alpha": 8.0, "ranks": [], "targets": [',
        '"overrides": {} }, "trial": 0, "seed": 0 }',
    ):
        assert said in text
    points = browser.driver.find_element(By.CSS_SELECTOR, "polyline").get_attribute("points")
    assert points == "0.0,0.0 260.0,112.5 520.0,150.0"
    browser.driver.find_element(By.XPATH, "//summary[text()='Every epoch']").click()
    epochs = browser.text("#run details[open] table")
    assert epochs == "epoch train loss learning rate 1 2 0.001 2 1 0.001 3 0.6667 0.001"
    seed = browser.driver.find_element(By.LINK_TEXT, "seed 1: 69.5")
    seed.click()
    browser.wait("return document.title.startsWith('lora on vtab/a, seed 1')")
    browser.driver.back()
    browser.wait("return document.title.startsWith('lora on vtab/a, seed 0')")
    assert browser.driver.find_element(By.LINK_TEXT, "seed 0: 71.1").get_attribute("aria-current") == "page"


def test_the_record_that_is_downloaded_is_the_record(browser: Browser, results: Results, tmp_path: Path) -> None:
    record = results.run("lora", "vtab/a", 50.0, config={"alpha": 8.0, "it's": 'a "b" \\ <c>'})
    browser.site = results.build(tmp_path / "board")
    browser.run(record)
    name = browser.driver.find_element(By.CSS_SELECTOR, "a[download]").get_attribute("download")
    assert name == f"{record.run_id}.json"
    folder = tmp_path / "downloads"
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.driver.find_element(By.CSS_SELECTOR, "a[download]").click()
    WebDriverWait(browser.driver, 20, 0.05).until(lambda _: (folder / name).exists())
    assert decode_record((folder / name).read_bytes(), name) == record


def test_hostile_texts_are_texts(browser: Browser, results: Results, tmp_path: Path) -> None:
    long = f"\u202e{HOSTILE}" + "x" * 5000
    record = results.run(HOSTILE, f"vtab/{HOSTILE}", status="error", message=long, config={HOSTILE: HOSTILE})
    other = results.run("__proto__", "__proto__", 50.0, overrides={HOSTILE: "a"}, deviation=HOSTILE)
    browser.site = results.build(tmp_path / "board")
    assert f"Error in adapt Unsupported: {long[:40]}" in browser.run(record)
    assert "This run departs from its protocol" not in browser.run(other)
    assert f"not ranked: departs from the protocol ({HOSTILE}=a; {HOSTILE})" in browser.text("#run")
    browser.open("runs.html")
    assert sorted(browser.column(1)) == sorted([HOSTILE, "__proto__"])
    for address in (f"run.html#{record.run_id}", f"run.html#{other.run_id}", "runs.html"):
        browser.open(address)
        browser.wait("return document.querySelectorAll('#run h1, #runs tbody tr').length > 0")
        assert not browser.driver.execute_script("return globalThis.ran")
        assert not browser.driver.find_elements(By.CSS_SELECTOR, "main img")


def test_several_models_phases_and_what_was_found(browser: Browser, searched_results: Results, tmp_path: Path) -> None:
    browser.site = searched_results.build(tmp_path / "board")
    [first, _] = [r for r in searched_results.records if r.spec.method.name == "dylora"]
    text = browser.run(first)
    assert "One training, every rank" in text
    assert "rank validation test 1 50.0 40.0 2 61.2 60.0 4 55.0 64.0 Best on validation: rank 2." in text
    assert browser.text("#run tr.chosen") == "2 61.2 60.0"
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "#run svg")) == 2
    [run] = [r for r in searched_results.records if r.spec.method.name == "noah"]
    text = browser.run(run)
    assert "supernet 75 975 0 1 min 0 s search 0 0 750 1 min 30 s retrain 15 195 0 12 s" in text
    assert 'What the method found architecture {"rank":[5,1,10]}' in text


def test_a_trial_and_what_was_chosen_show_their_search(
    browser: Browser, tuned_results: Results, tmp_path: Path
) -> None:
    browser.site = tuned_results.build(tmp_path / "board")

    def run_of(trial: int, is_trial: bool, seed: int | None = None) -> RunRecord:
        """Of lora's search on digits."""
        return next(
            run
            for run in tuned_results.records
            if (run.spec.method.name, run.spec.task.name, run.spec.trial) == ("lora", DIGITS, trial)
            and run.spec.tuning
            and run.spec.is_trial == is_trial
            and seed in (None, run.spec.seed)
        )

    text = browser.run(run_of(1, True))
    assert "lora on embedded/digits, trial 1" in text
    assert "A trial is measured on the validation split alone and stands in no table." in text
    assert "validation (accuracy) 65.25%; chance 10.0" in text
    assert "1 learning_rate=0.001 rank=16 65.2 3, chosen by 3 1: 63.0 2: 64.0 3: 65.0" in text
    assert "2 learning_rate=0.002 rank=16 diverged 1 1: 99.0" in text
    assert "--seed 1 --seed 2 --seed 3 --trials 6 --studies 3 --protocol embedded-v1" in text
    text = browser.run(run_of(1, False, 2))
    assert "Tests what a search of 6 trials chose: trial 1, learning rate 0.001" in text
    assert "Repeat its search" in text
    assert "On the board in the row of rank" in text and "the median of 3 studies" in text
    assert "In no table: of a trial that its search no longer chooses." in browser.run(run_of(2, False))
    assert "A trial is measured on the validation split alone" in browser.run(run_of(2, True))
    link = browser.driver.find_element(By.CSS_SELECTOR, "#run .meta a[href$='/search']")
    link.click()
    browser.wait("return Math.abs(document.getElementById('search').getBoundingClientRect().top) < 300")


@pytest.mark.parametrize("address", ["", "#content", "#0123456789abcdef", "#../../x", "#%3Cscript%3E"])
def test_what_is_no_run(browser: Browser, results: Results, tmp_path: Path, address: str) -> None:
    results.run("lora", "vtab/a", 50.0)
    browser.site = results.build(tmp_path / "board")
    browser.driver.get(f"{(browser.site / 'run.html').as_uri()}{address}")
    browser.wait("return document.querySelector('#run h1') !== null")
    assert "list of runs" in browser.text("#run")
    browser.driver.get_log("browser")  # a file that is not there


def test_the_table_is_searched_filtered_and_sorted(browser: Browser, full_results: Results, tmp_path: Path) -> None:
    browser.site = full_results.build(tmp_path / "board")
    browser.open("runs.html")
    ids = sorted(record.run_id for record in full_results.records)
    assert browser.column(0) == ids
    assert browser.driver.execute_script("return document.querySelectorAll('#runs script, #runs b').length") == 0
    browser.driver.find_element(By.XPATH, "//table[@id='runs']//th[normalize-space()='Test']").click()
    browser.until(lambda: browser.column(6)[0] == "95.0")
    assert browser.column(6)[-1] == "–"
    assert browser.address["sort"] == ["test|desc"]
    search = browser.driver.find_element(By.CSS_SELECTOR, "#filters input")
    search.send_keys("lora deviation")
    browser.until(lambda: browser.column(1) == ["lora"])
    assert browser.text("#filters [data-shown]") == f"1 of {len(ids)} runs"
    search.send_keys(Keys.BACKSPACE * 20)
    Select(browser.driver.find_element(By.CSS_SELECTOR, "#filters [aria-label=method]")).select_by_value("linear")
    Select(browser.driver.find_element(By.CSS_SELECTOR, "#filters [aria-label=task]")).select_by_value(
        "embedded/digits"
    )
    browser.until(lambda: browser.column(6) == ["41.0", "40.0"])
    assert browser.address == {"method": ["linear"], "task": ["embedded/digits"], "sort": ["test|desc"]}
    address = browser.driver.current_url.rpartition("/")[2]
    browser.open(address)  # as if it had been sent
    assert browser.column(6) == ["41.0", "40.0"]
    browser.open("runs.html#search=nothing+of+the+kind")
    assert browser.text("#runs tbody") == "No run matches the filter."
    browser.open("runs.html")
    run = browser.driver.find_element(By.CSS_SELECTOR, "#runs tbody a")
    run.click()
    browser.wait(f"return document.getElementById('run')?.dataset.shown === '{ids[0]}'")


def test_pages_of_the_table(browser: Browser, results: Results, tmp_path: Path) -> None:
    for seed in range(250):
        results.run("lora", "vtab/a", 50.0, seed=seed)
    browser.site = results.build(tmp_path / "board")
    browser.open("runs.html")
    ids = sorted(record.run_id for record in results.records)
    assert browser.column(0) == ids[:100]
    browser.driver.find_element(By.XPATH, "//*[contains(@class,'dt-paging')]//button[text()='3']").click()
    browser.until(lambda: browser.column(0) == ids[200:])
    assert browser.address == {"page": ["3"]}
    browser.open("runs.html#page=2")
    assert browser.column(0) == ids[100:200]
    browser.open("runs.html#page=99")
    assert browser.column(0) == ids[200:]


def test_without_javascript_the_table_is_there(browser: Browser, results: Results, tmp_path: Path) -> None:
    record = results.run("lora", "vtab/a", 50.0)
    browser.site = results.build(tmp_path / "board")
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open("runs.html")
        assert (
            browser.text("#runs tbody") == f"{record.run_id} record lora embedded/vit vtab/a 0 ok 50.0 2026-11-24 03:00"
        )
        browser.driver.find_element(By.LINK_TEXT, "record").click()
        assert json.dumps(record.run_id) in browser.text("body")
        browser.open("run.html")
        assert "list of runs" in browser.text("main")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

"""The page in a browser, opened from a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

if TYPE_CHECKING:
    from ..conftest import Results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver: apt-get install chromium chromium-driver"
    ),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def started(profile: Path) -> webdriver.Chrome:
    """A browser that keeps what pages log."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))


@pytest.fixture
def browser(full_results: Results, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    site = full_results.build(tmp_path / "board")
    driver = started(tmp_path / "profile")
    try:
        driver.get((site / "index.html").as_uri())
        yield driver
    finally:
        driver.quit()


def names(browser: webdriver.Chrome) -> list[str]:
    """The rows of the first table, of those that are shown."""
    heads = browser.find_elements(By.CSS_SELECTOR, "article:first-of-type tbody th")
    return [str(head.get_attribute("data-order")) for head in heads if head.is_displayed()]


def eventually(browser: webdriver.Chrome, found: Callable[[], object], expected: object) -> None:
    """A table is drawn anew a moment after it is told to be."""
    with suppress(TimeoutException):
        WebDriverWait(browser, 5, 0.05).until(lambda _: found() == expected)
    assert found() == expected


def head(browser: webdriver.Chrome, text: str) -> WebElement:
    """The head of a column of the first table."""
    return browser.find_element(By.XPATH, f"(//table)[1]//thead//th[.//span[@data-column and .='{text}']]")


def test_sort_filter_and_tabs(browser: webdriver.Chrome) -> None:
    assert browser.get_log("browser") == []  # nothing was refused or failed
    eventually(browser, lambda: names(browser), ["lora", "lora rank=16", "linear", "weird/<b>$x_1", "lora deviation"])

    head(browser, "Method").click()
    eventually(browser, lambda: names(browser), ["linear", "lora", "lora deviation", "lora rank=16", "weird/<b>$x_1"])
    by_keyboard = head(browser, "Method").find_element(By.CSS_SELECTOR, "[role=button]")
    by_keyboard.send_keys(Keys.ENTER)  # the other way round
    eventually(browser, lambda: names(browser)[0], "weird/<b>$x_1")
    assert head(browser, "Method").get_attribute("aria-sort") == "descending"

    head(browser, "digits").click()
    eventually(
        browser, lambda: names(browser), ["lora deviation", "lora", "lora rank=16", "linear", "weird/<b>$x_1"]
    )  # no figure: last

    search = browser.find_element(By.NAME, "search")
    search.send_keys("rank")
    eventually(browser, lambda: names(browser), ["lora rank=16"])
    search.send_keys(Keys.BACKSPACE * 4)
    browser.find_element(By.XPATH, "//button[text()='baseline']").click()
    eventually(browser, lambda: names(browser), ["linear"])

    browser.find_element(By.LINK_TEXT, "Open vocabulary").click()
    eventually(browser, lambda: names(browser), ["coop", "zero_shot"])
    assert browser.get_log("browser") == []


def cost_names(browser: webdriver.Chrome) -> list[str]:
    table = browser.find_element(By.CSS_SELECTOR, "table.costs")
    rows = [row for row in table.find_elements(By.CSS_SELECTOR, "tbody tr") if row.is_displayed()]
    return [str(row.find_element(By.CSS_SELECTOR, "th").get_attribute("data-order")) for row in rows]


def test_costs_sort_and_filter(browser: webdriver.Chrome) -> None:
    browser.find_element(By.LINK_TEXT, "Efficiency").click()
    browser.find_element(By.CSS_SELECTOR, "#backbones a[href='efficiency/embedded__vit.html']").click()
    assert browser.get_log("browser") == []
    plain, bfloat16, int8 = "lora", "lora bfloat16", "lora bfloat16 frozen int8"
    eventually(browser, lambda: cost_names(browser), [plain, bfloat16, int8, "full"])

    def sort(text: str) -> None:
        head(browser, text).click()

    sort("Training memory")
    eventually(browser, lambda: cost_names(browser), [int8, bfloat16, plain, "full"])
    sort("Training memory")
    eventually(browser, lambda: cost_names(browser), ["full", plain, bfloat16, int8])
    sort("÷ plain")  # what is plain itself has none, and comes last
    eventually(browser, lambda: cost_names(browser), [int8, bfloat16, plain, "full"])

    search = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("bfloat16 int8")
    eventually(browser, lambda: cost_names(browser), [int8])
    assert "of 6 rows" in browser.find_element(By.CSS_SELECTOR, "[data-shown]").text  # with those on hardware
    search.send_keys(Keys.BACKSPACE * 13)
    browser.find_element(By.CSS_SELECTOR, "[data-filter-family=other]").click()
    eventually(browser, lambda: cost_names(browser), ["full"])


def test_families_of_backbones_are_tabs(browser: webdriver.Chrome) -> None:
    browser.find_element(By.LINK_TEXT, "Scaling").click()
    assert browser.get_log("browser") == []
    head(browser, "Training memory").click()
    first = browser.find_element(By.CSS_SELECTOR, "table.exponents tbody td:nth-child(3)")
    assert first.text == "0.50"


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways(browser: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)  # a window cannot be as narrow as a phone
    links = browser.find_elements(By.CSS_SELECTOR, "a[href*='run.html'], .top a, a[href*='methods/']")
    urls = sorted({str(link.get_attribute("href")) for link in links})[:14]
    browser.get(next(url for url in urls if url.endswith("efficiency.html")))
    costs = browser.find_elements(By.CSS_SELECTOR, "#backbones a")
    for url in [*urls, *(str(link.get_attribute("href")) for link in costs)]:
        browser.get(url)
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(script) == 0, url

"""The page in a browser, opened from a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

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


@pytest.fixture
def browser(full_results: Results, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    site = full_results.build(tmp_path / "board")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        driver.get((site / "index.html").as_uri())
        yield driver
    finally:
        driver.quit()


def names(browser: webdriver.Chrome) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#track-image tbody tr")
    heads = [row.find_element(By.CSS_SELECTOR, "th") for row in rows if row.is_displayed()]
    return [str(head.get_attribute("data-value")) for head in heads]


def test_sort_filter_and_tabs(browser: webdriver.Chrome) -> None:
    assert browser.get_log("browser") == []  # nothing was refused or failed
    assert names(browser) == ["lora", "lora rank=16", "linear", "weird/<b>$x_1", "lora deviation"]

    method = browser.find_element(By.XPATH, "//section[@id='track-image']//thead//button[text()='Method']")
    method.click()
    assert names(browser) == ["linear", "lora", "lora deviation", "lora rank=16", "weird/<b>$x_1"]
    method.send_keys(Keys.ENTER)  # by keyboard, the other way round
    assert names(browser)[0] == "weird/<b>$x_1"
    assert method.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"

    digits = browser.find_element(By.XPATH, "//section[@id='track-image']//thead//button[text()='digits']")
    digits.click()
    assert names(browser) == ["lora deviation", "lora", "lora rank=16", "linear", "weird/<b>$x_1"]  # no figure: last

    search = browser.find_element(By.CSS_SELECTOR, "#track-image input[type=search]")
    search.send_keys("rank")
    assert names(browser) == ["lora rank=16"]
    search.send_keys(Keys.BACKSPACE * 4)
    browser.find_element(By.CSS_SELECTOR, "#track-image [data-filter-family=baseline]").click()
    assert names(browser) == ["linear"]

    image, words = (browser.find_element(By.ID, f"track-{name}") for name in ("image", "openvocab"))
    assert image.is_displayed() and not words.is_displayed()
    browser.find_element(By.CSS_SELECTOR, ".tabs a[href='#track-openvocab']").click()
    assert words.is_displayed() and not image.is_displayed()


def cost_names(browser: webdriver.Chrome) -> list[str]:
    table = browser.find_element(By.CSS_SELECTOR, "table.costs")
    rows = [row for row in table.find_elements(By.CSS_SELECTOR, "tbody tr") if row.is_displayed()]
    return [str(row.find_element(By.CSS_SELECTOR, "th").get_attribute("data-value")) for row in rows]


def test_costs_sort_and_filter(browser: webdriver.Chrome) -> None:
    browser.find_element(By.LINK_TEXT, "Efficiency").click()
    browser.find_element(By.CSS_SELECTOR, "#backbones a[href='efficiency/embedded__vit.html']").click()
    assert browser.get_log("browser") == []
    plain, bfloat16, int8 = "lora", "lora bfloat16", "lora bfloat16 frozen int8"
    assert cost_names(browser) == [plain, bfloat16, int8, "full"]

    def head(text: str) -> None:
        browser.find_element(By.XPATH, f"(//table)[1]//thead//button[text()='{text}']").click()

    head("Training memory")
    assert cost_names(browser) == [int8, bfloat16, plain, "full"]
    head("Training memory")
    assert cost_names(browser) == ["full", plain, bfloat16, int8]
    head("÷ plain")  # what is plain itself has none, and comes last
    assert cost_names(browser) == [int8, bfloat16, "full", plain]

    search = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("bfloat16 int8")
    assert cost_names(browser) == [int8]
    assert "of 6 rows" in browser.find_element(By.CSS_SELECTOR, "[data-shown]").text  # with those on hardware
    search.send_keys(Keys.BACKSPACE * 13)
    browser.find_element(By.CSS_SELECTOR, "[data-filter-family=other]").click()
    assert cost_names(browser) == ["full"]


def test_families_of_backbones_are_tabs(browser: webdriver.Chrome) -> None:
    browser.find_element(By.LINK_TEXT, "Scaling").click()
    assert browser.get_log("browser") == []
    exponent = browser.find_element(By.XPATH, "//thead//button[text()='Training memory']")
    exponent.click()
    first = browser.find_element(By.CSS_SELECTOR, "table.exponents tbody td:nth-child(3)")
    assert first.text == "0.50"


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways(browser: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)  # a window cannot be as narrow as a phone
    links = browser.find_elements(By.CSS_SELECTOR, "a[href*='runs/'], .top a, a[href*='methods/']")
    urls = sorted({str(link.get_attribute("href")) for link in links})[:14]
    browser.get(next(url for url in urls if url.endswith("efficiency.html")))
    costs = browser.find_elements(By.CSS_SELECTOR, "#backbones a")
    for url in [*urls, *(str(link.get_attribute("href")) for link in costs)]:
        browser.get(url)
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(script) == 0, url

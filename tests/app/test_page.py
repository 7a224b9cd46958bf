"""The page in a real browser, against the real service with real models.

`SHORTLIST_SCREENSHOT=docs/images/page.png pytest tests/app/test_page.py` renews the picture in the README.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from index.directory import IndexDirectory
from index.encoders import Encoder
from index.sources import read_documents
from rankers.events import Event

CONFIG = """
models_dir: {models_dir}
default: first
pipelines:
  bm25: {{retriever: {{kind: bm25}}}}
  first:
    retriever: {{kind: hybrid, fusion: rrf, depth: 100}}
    stages: [{{kind: listwise, name: first, model: smollm2-135m, depth: 20, passage_tokens: 60}}]
"""
PASSAGES = 300
WAIT_S = 90


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, minilm: str, smollm2: str, models_dir: Path
) -> Iterator[tuple[str, Path]]:
    """URL of a running service, and its folder."""
    assert Path(smollm2).is_dir()
    folder = tmp_path_factory.mktemp("page")
    config = folder / "shortlist.yaml"
    config.write_text(CONFIG.format(models_dir=models_dir.resolve()))
    directory = IndexDirectory(folder / "var" / "index")
    passages = [document for document in read_documents("python-docs") if len(document.text) > 200]
    directory.corpus.append(passages[:: max(len(passages) // PASSAGES, 1)])
    directory.build(encoder=Encoder(minilm), encoder_name="minilm")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder) as server:
        try:
            _wait_until_ready(url)
            yield url, folder
        finally:
            server.terminate()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the service was not ready after {WAIT_S} s")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.fail("the page is tested in a real browser: install chromium and chromedriver (make browser)")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1240,900",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    with Chrome(options=options, service=ChromeService(driver)) as browser:
        yield browser


def _search(browser: Chrome, query: str) -> None:
    box = browser.find_element(By.ID, "query")
    box.clear()
    box.send_keys(query, Keys.ENTER)


def _ids(browser: Chrome, column: str) -> list[str]:
    cards = browser.find_elements(By.CSS_SELECTOR, f"#{column} .hit")
    return [str(card.get_attribute("data-id")) for card in cards]


def test_a_query_shows_both_lists_and_a_click_is_logged(browser: Chrome, service: tuple[str, Path]) -> None:
    url, folder = service
    browser.get(url)
    WebDriverWait(browser, WAIT_S).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#pipeline option"))
    _search(browser, "how do I close a file even if an error happens")
    WebDriverWait(browser, WAIT_S).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#after .hit"))

    before, after = _ids(browser, "before"), _ids(browser, "after")
    assert sorted(before) == sorted(after)
    assert len(after) == 20
    reply = httpx.post(
        f"{url}/v1/search",
        json={"query": "how do I close a file even if an error happens", "top_k": 20},
        timeout=WAIT_S,
    ).json()
    assert after == [result["document"]["id"] for result in reply["results"]]
    assert before == sorted(
        after, key=lambda i: next(r for r in reply["results"] if r["document"]["id"] == i)["stages"]["retrieve"]["rank"]
    )
    timing = browser.find_element(By.ID, "timing").text
    assert "retrieve" in timing
    assert "first" in timing
    assert " ms" in timing
    screenshot = os.environ.get("SHORTLIST_SCREENSHOT")
    if screenshot:
        browser.save_screenshot(screenshot)

    card = browser.find_element(By.CSS_SELECTOR, "#after li:nth-child(2) .hit")
    card.click()
    status = browser.find_element(By.ID, "status")
    WebDriverWait(browser, WAIT_S).until(lambda _: "logged" in status.text)
    assert "open" in str(card.get_attribute("class"))
    assert [(click.document_id, click.position) for click in _clicks(folder)] == [(after[1], 2)]


def _clicks(folder: Path) -> list[Event]:
    from index.clicklog.store import open_click_log

    return [event for _, event in open_click_log(f"sqlite:///{folder}/var/clicks.sqlite").events()]


def test_an_error_is_shown_in_words(browser: Chrome, service: tuple[str, Path]) -> None:
    url, _ = service
    browser.get(url)
    WebDriverWait(browser, WAIT_S).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#pipeline option"))
    browser.execute_script("document.getElementById('pipeline').add(new Option('gone', 'gone', true, true))")
    _search(browser, "anything")
    status = browser.find_element(By.ID, "status")
    WebDriverWait(browser, WAIT_S).until(lambda _: "gone" in status.text)
    assert "error" in str(status.get_attribute("class"))
    assert not browser.find_element(By.ID, "board").is_displayed()

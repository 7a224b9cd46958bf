"""`shortlist demo-loop`: the users, and a small run of everything, seen in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from app.cli.demo_loop import FEATURES
from app.cli.demo_users import (
    EXAMINATION,
    NOISE,
    PREFERENCES,
    Audience,
    clicked_places,
    headings,
    liking,
    ndcg_at_10,
    with_code,
)
from index.clicklog.store import open_click_log
from index.sources import read_documents
from rankers.ltr.features import FeatureSet
from rankers.registry import ModelRegistry
from rankers.types import Document

WAIT_S = 240
FEATURE_SET = FeatureSet.model_validate(FEATURES)
COMMAND = [sys.executable, "-m", "app.cli", "demo-loop"]


def test_users_like_code_and_closeness_and_dislike_length() -> None:
    filler = "it is said " * 20
    documents = {
        "plain": Document("plain", f"slice objects {filler}", "types"),
        "code": Document("code", f'slice objects {filler} "a" "b" "c" "d" "e" "f"', "types"),
        "far": Document("far", f"slice {filler} objects", "types"),
        "long": Document("long", f"slice objects {filler * 2}", "types"),
        "title": Document("title", f"slice objects {filler}", "slice"),
    }
    values = liking("slice objects", [with_code(each) for each in documents.values()], FEATURE_SET)
    liked = dict(zip(documents, values, strict=True))
    assert liked["code"] > liked["title"] > liked["plain"] > max(liked["far"], liked["long"])
    assert ((values > 0) & (values < 1)).all()


def test_rankers_see_what_users_care_about_and_nothing_of_the_place() -> None:
    names = FEATURE_SET.names
    assert {preference.feature for preference in PREFERENCES} < set(names)
    assert not [name for name in names if "rank" in name or "score" in name]


def test_clicks_follow_the_position_based_model() -> None:
    generator, users = np.random.default_rng(1), 20_000
    liked = [0.0, 1.0, 0.5, *[0.2] * 9]
    counts = np.zeros(len(liked))
    for _ in range(users):
        counts[np.array(clicked_places(liked, generator), dtype=int) - 1] += 1
    expected = np.array(EXAMINATION) * (NOISE + (1 - NOISE) * np.array(liked[:10]))
    assert counts[:10] / users == pytest.approx(expected, abs=4 * 0.5 / users**0.5)
    assert not counts[10:].any()


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20), st.randoms())
def test_ndcg_is_1_for_the_best_order_and_at_most_1_for_any(gains: list[float], random: object) -> None:
    shuffled = sorted(gains, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert ndcg_at_10(sorted(gains, reverse=True), gains) == pytest.approx(1)
    assert 0 <= ndcg_at_10(shuffled, gains) <= 1 + 1e-9


def test_queries_are_headings_and_are_divided_without_overlap() -> None:
    queries = headings(list(read_documents("python-docs")))
    assert 40 <= len(queries) <= 80
    assert "Slice objects" in queries
    documents = [with_code(Document(str(at), f"text {at}")) for at in range(3)]
    audience = Audience.meet(dict.fromkeys(queries, documents), FEATURE_SET, asked=25, seed=0)
    assert len(audience.asked) == 25
    assert sorted((*audience.asked, *audience.held_out)) == queries
    assert Audience.meet(dict.fromkeys(queries, documents), FEATURE_SET, asked=1000, seed=0).held_out


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
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
        "--window-size=1200,1400",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):
        options.add_argument(argument)
    with Chrome(options=options, service=ChromeService(driver)) as browser:
        yield browser


def test_clicks_make_the_ranking_better_and_the_page_shows_it(browser: Chrome, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--rounds", "1", "--queries", "12", "--searches", "480"]
    with subprocess.Popen([*COMMAND, *options], cwd=tmp_path, env=_environment()) as demo:
        try:
            _wait_until_up(url, demo)
            browser.get(f"{url}/demo")
            WebDriverWait(browser, WAIT_S).until(
                lambda page: (
                    page.find_element(By.TAG_NAME, "body").get_attribute("data-state") in {"finished", "failed"}
                )
            )
            shown = httpx.get(f"{url}/demo/progress").json()
            _check_page(browser, shown)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
        finally:
            demo.kill()

    assert shown["state"] == "finished"
    before, after = shown["measures"]
    assert before["held_out"]["debiased"] == before["held_out"]["naive"] == before["held_out"]["production"]
    assert after["held_out"]["debiased"] > before["held_out"]["production"] + 0.05
    assert after["held_out"]["production"] == before["held_out"]["production"]
    folder = tmp_path / "var" / "demo-loop"
    decision = next(each for each in shown["decisions"] if each["arm"] == "debiased")
    assert decision["promoted"], decision["reasons"]
    assert ModelRegistry(folder / "models").live_version("demo-debiased") == decision["version"]
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    assert log.status().impressions == after["searches"] == 480
    assert log.status().events == {"click": after["clicks"]}
    log.close()


def _check_page(browser: Chrome, shown: dict[str, object]) -> None:
    measures = shown["measures"]
    assert isinstance(measures, list)
    final = f"{measures[-1]['held_out']['debiased']:.3f}"
    assert final in browser.find_element(By.ID, "status").text
    assert final in str(browser.find_element(By.ID, "held-out").get_attribute("aria-label"))
    assert str(browser.find_element(By.CSS_SELECTOR, "#clicked path.debiased").get_attribute("d")).count("L") == 1
    assert len(browser.find_elements(By.CSS_SELECTOR, "#curves path")) == 3
    verdicts = browser.find_elements(By.CSS_SELECTOR, "#gates td[data-arm]")
    assert [verdict.get_attribute("data-arm") for verdict in verdicts] == ["debiased", "naive"]
    assert verdicts[0].text.startswith("promoted")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#example ol")) == 3
    assert len(browser.find_elements(By.CSS_SELECTOR, "#example .place")) == 30
    assert len(browser.find_elements(By.CSS_SELECTOR, "#likes tr")) == len(PREFERENCES)
    browser.find_element(By.TAG_NAME, "summary").click()
    assert final in browser.find_element(By.ID, "numbers").text


def test_once_fails_if_nothing_got_better(tmp_path: Path) -> None:
    options = ["--once", "--port", "0", "--rounds", "1", "--searches", "8"]
    done = subprocess.run([*COMMAND, *options], cwd=tmp_path, env=_environment(), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "refused, enough sessions" in done.stderr
    assert "not better than production" in " ".join(done.stderr.split())


def test_a_port_in_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ["--port", str(taken.getsockname()[1])]
        done = subprocess.run([*COMMAND, *options], cwd=tmp_path, env=_environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "choose another --port" in done.stderr
    assert not (tmp_path / "var").exists()


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200"}


def _wait_until_up(url: str, demo: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and demo.poll() is None:
        try:
            if httpx.get(f"{url}/demo/progress").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"there was no page after {WAIT_S} s; the demonstration ended with {demo.poll()}")

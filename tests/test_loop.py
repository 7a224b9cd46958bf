"""The loop as people use it: a service that searches and logs, users that click, turns that swap the live model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from index.clicklog.store import open_click_log
from index.directory import IndexDirectory
from index.pipelines import load_pipelines
from index.sources import read_documents
from rankers.ltr.features import load_feature_set
from rankers.ltr.models import load_numeric_ranker
from rankers.registry import ModelRegistry
from tests.app.conftest import running
from training.loop.gate import Check
from training.loop.once import Loop, Outcome
from training.loop.settings import LoopSettings, load_settings

STEADY = "examination steady within the log"
TOPICS, DOCUMENTS, SESSIONS = 20, 12, 40
EXAMINATION = np.array([0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06])
TOPIC_WORDS = [f"topic{chr(ord('a') + number)}" for number in range(TOPICS)]

FEATURE_SET = """
name: shop
version: 1
features:
  - {name: bm25, kind: bm25}
  - {name: first_rank, kind: rank, of: first}
  - {name: worth, kind: caller}
  - {name: noise, kind: caller}
"""
SHORTLIST = """
index: index
models_dir: models
default: learned
pipelines:
  learned:
    retriever: {kind: bm25}
    stages:
      - {kind: ltr, model: ranker, depth: 10, feature_set: features.yaml}
"""
LOOP = """
model: ranker
log: sqlite:///clicks.sqlite
config: shortlist.yaml
work_dir: loop
gate:
  clicks: {min_sessions: 300, min_clicks: 100}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index, whose documents have a worth that users see and BM25 does not."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    with (folder / "documents.jsonl").open("w") as file:
        for word in TOPIC_WORDS:
            for number in range(DOCUMENTS):
                features = {"worth": round(float(rng.random()), 3), "noise": round(float(rng.random()), 3)}
                text = f"about {word} " + "and more " * int(rng.integers(1, 9))
                json.dump({"id": f"{word}-{number}", "text": text, "features": features}, file)
                file.write("\n")
    (folder / "features.yaml").write_text(FEATURE_SET)
    (folder / "shortlist.yaml").write_text(SHORTLIST.replace("features.yaml", str(folder / "features.yaml")))
    (folder / "loop.yaml").write_text(LOOP)
    directory = IndexDirectory(folder / "index")
    directory.corpus.append(read_documents(str(folder / "documents.jsonl")))
    directory.build(encoder=None, encoder_name=None)
    return folder


@pytest.fixture(scope="module")
def client(shop: Path) -> Iterator[httpx.Client]:
    pipelines = load_pipelines(shop / "shortlist.yaml")
    with running(
        pipelines, shop, click_log_url=f"sqlite:///{shop}/clicks.sqlite", refresh_interval_s=0.2, golden_interval_s=1
    ) as client:
        yield client
    pipelines.close()


def search(client: httpx.Client, word: str, **more: object) -> dict[str, object]:
    reply = client.post("/v1/search", json={"query": word, "top_k": 10, "explain": True, **more})
    assert reply.is_success, reply.text
    found: dict[str, object] = reply.json()
    return found


def worths(found: dict[str, object]) -> list[float]:
    return [result["document"]["features"]["worth"] for result in found["results"]]  # type: ignore[attr-defined]


def quality(client: httpx.Client) -> float:
    """Mean nDCG@10 over topics, with worth as the (linear) gain."""
    discounts = 1 / np.log2(np.arange(10) + 2)
    values = []
    for word in TOPIC_WORDS:
        shown = np.array(worths(search(client, word, log=False)))
        values.append((shown @ discounts) / (np.sort(shown)[::-1] @ discounts))
    return float(np.mean(values))


def visit(client: httpx.Client, wants: Callable[[np.random.Generator, list[float]], Sequence[int]], seed: int) -> None:
    """Every topic is searched SESSIONS times, each time by somebody else, who clicks the places they want."""
    rng = np.random.default_rng(seed)
    for session in range(SESSIONS):
        events: list[dict[str, object]] = []
        for word in TOPIC_WORDS:
            found = search(client, word, user=f"{seed}-{word}-{session}")
            results: list[dict[str, dict[str, object]]] = found["results"]  # type: ignore[assignment]
            for place in wants(rng, worths(found)):
                document_id = results[place]["document"]["id"]
                events.append({"impression_id": found["impression_id"], "document_id": document_id})
        if events:
            assert client.post("/v1/events", json={"events": events}).is_success


def honest(rng: np.random.Generator, values: list[float]) -> list[int]:
    attracted = rng.random(len(values)) < 0.1 + 0.9 * np.array(values) ** 3
    return list(np.flatnonzero(attracted & (rng.random(len(values)) < EXAMINATION[: len(values)])))


def fifth(rng: np.random.Generator, values: list[float]) -> list[int]:
    return [4]


class Load:
    """Searches without a break in a thread of its own, and counts what failed."""

    def __init__(self, client: httpx.Client) -> None:
        self.replies: list[int] = []
        self._client = httpx.Client(base_url=client.base_url, timeout=30)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            reply = self._client.post("/v1/search", json={"query": TOPIC_WORDS[0], "log": False})
            self.replies.append(reply.status_code)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self._client.close()


def turn(shop: Path, **changes: object) -> Outcome:
    settings: LoopSettings = load_settings(shop / "loop.yaml").model_copy(update=changes)
    return Loop(settings).turn()


def outcome_folder(shop: Path, outcome: Outcome) -> Path:
    return shop / "models" / "ranker" / outcome.run


def check_named(name: str, outcome: Outcome) -> Check:
    (found,) = (check for check in outcome.decision.checks if check.name == name)
    return found


def wait_for(client: httpx.Client, version: str) -> None:
    ends_at = time.monotonic() + 30
    while version not in client.get("/v1/pipelines").text:
        assert time.monotonic() < ends_at, f"{version} was not swapped in"
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_the_loop_closes_and_cannot_be_poisoned(shop: Path, client: httpx.Client) -> None:
    before = quality(client)
    visit(client, honest, seed=1)
    with Load(client) as load:
        outcome = turn(shop)
        assert outcome.decision.promoted, outcome.decision.reasons
        assert outcome.live is not None
        wait_for(client, outcome.live)
        time.sleep(0.3)
    assert set(load.replies) == {200}
    assert len(load.replies) > 10
    after = quality(client)
    assert after > before + 0.05
    assert "Promoted" in outcome.report.read_text()
    assert not (outcome.report.parent / "log").exists(), "the exported log is not kept"

    card = ModelRegistry(shop / "models").card("ranker")
    assert card.feature_set == "shop@1"
    assert card.measures

    # The features, exactly as the ranker saw them, are in the log, with the version that made the order of them.
    log = open_click_log(f"sqlite:///{shop}/clicks.sqlite")
    shown = log.impression(str(search(client, TOPIC_WORDS[0])["impression_id"]))
    log.close()
    assert shown is not None
    assert shown.model_version.endswith(f"ranker@{outcome.live}")
    assert shown.feature_set == card.feature_set
    features, model = load_feature_set(shop / "features.yaml"), load_numeric_ranker(outcome_folder(shop, outcome))
    assert model.feature_names == features.names
    scores = model.score(np.stack([features.from_log(shown.features[each]) for each in shown.document_ids]))
    assert (np.diff(scores) < 1e-6).all()

    visit(client, fifth, seed=2)
    poisoned = turn(shop)
    assert not poisoned.decision.promoted
    assert not check_named(STEADY, poisoned).holds
    assert poisoned.live == outcome.live
    report = poisoned.report.read_text()
    assert "Not promoted" in report
    assert STEADY in report
    assert quality(client) == pytest.approx(after)

    # Without poison the check holds, and the very log that was promoted from is refused with it: where nothing is live
    # the candidate has no better one to beat.
    assert check_named(STEADY, outcome).holds
    (shop / "fresh.yaml").write_text(
        (shop / "shortlist.yaml").read_text().replace("models_dir: models", "models_dir: fresh")
    )
    anew = turn(shop, config=shop / "fresh.yaml", work_dir=shop / "fresh")
    assert not anew.decision.promoted
    assert not check_named(STEADY, anew).holds

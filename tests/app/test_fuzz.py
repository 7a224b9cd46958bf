"""Whatever is sent, the service answers, with 200 or an error that says what is wrong; never with a 500."""

import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankers.types import Document
from tests.app.conftest import running
from tests.app.fakes import FakePipelines, WordRanker, pipeline_of

FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
documents = st.lists(
    st.text(max_size=30)
    | st.fixed_dictionaries(
        {"text": st.text(max_size=30)},
        optional={"id": anything, "title": st.text(), "metadata": anything, "features": anything, "x": anything},
    ),
    min_size=1,
    max_size=5,
)
OPTIONS: dict[str, st.SearchStrategy[object]] = {
    "model": st.none() | st.just("words") | st.text(),
    "top_n": st.none() | st.integers(1, 9) | anything,
    "top_k": st.none() | st.integers(1, 9) | anything,
    "return_documents": st.booleans() | anything,
    "rank_fields": st.lists(st.sampled_from(["text", "x", "title"])) | anything,
    "truncation": st.booleans() | anything,
    "deadline_ms": st.integers(1, 10**12) | anything,
    "raw_scores": st.booleans() | anything,
    "log": st.booleans() | anything,
    "user": st.text() | anything,
    "layout": st.sampled_from(["list", "grid:2"]) | anything,
}
nearly_right = st.fixed_dictionaries({"query": st.text(min_size=1), "documents": documents}, optional=OPTIONS)
nearly_tei = st.fixed_dictionaries({"query": st.text(min_size=1), "texts": st.lists(st.text())}, optional=OPTIONS)
wrong = st.dictionaries(st.sampled_from(["query", "documents", "texts", "top_n", "model"]) | st.text(), anything)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    pipeline = pipeline_of(WordRanker(), documents=[Document("a", "a 0 1 x")])
    with running(FakePipelines({"words": lambda: pipeline}), tmp_path_factory.mktemp("fuzz")) as client:
        yield client


def check(reply: httpx.Response) -> None:
    assert reply.status_code in {200, 400, 404, 413, 422}, reply.text
    content = reply.json()
    if reply.status_code != 200:
        assert content["message"]


@FUZZ
@given(body=nearly_right | nearly_tei | wrong | anything)
def test_any_json(client: httpx.Client, body: object) -> None:
    check(client.post("/v1/rerank", content=json.dumps(body), headers={"content-type": "application/json"}))


@FUZZ
@given(content=st.binary(max_size=200))
def test_any_bytes(client: httpx.Client, content: bytes) -> None:
    check(client.post("/v2/rerank", content=content, headers={"content-type": "application/json"}))


@FUZZ
@given(body=nearly_right)
def test_every_document_comes_back_once(client: httpx.Client, body: dict[str, object]) -> None:
    body = {key: body[key] for key in ("query", "documents")}
    body["documents"] = [text if isinstance(text, str) else text["text"] for text in body["documents"]]  # type: ignore[attr-defined]
    reply = client.post("/v1/rerank", content=json.dumps(body), headers={"content-type": "application/json"})
    check(reply)
    if reply.status_code == 200:
        indexes = [result["index"] for result in reply.json()["results"]]
        assert sorted(indexes) == list(range(len(body["documents"])))  # type: ignore[arg-type]


@FUZZ
@given(body=st.dictionaries(st.sampled_from(["query", "pipeline", "top_k", "explain", "deadline_ms"]), anything))
def test_any_search(client: httpx.Client, body: object) -> None:
    reply = client.post("/v1/search", content=json.dumps(body), headers={"content-type": "application/json"})
    check(reply)


@FUZZ
@given(events=st.lists(st.dictionaries(st.sampled_from(["id", "impression_id", "document_id", "position"]), anything)))
def test_any_events(client: httpx.Client, events: object) -> None:
    body = json.dumps({"events": events})
    check(client.post("/v1/events", content=body, headers={"content-type": "application/json"}))

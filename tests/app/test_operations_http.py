"""Keys, request ids, health, readiness, metrics, documentation, and clients that go away."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import httpx
import pytest

from rankers.errors import ConfigError, NotReadyError
from rankers.pipeline import Pipeline, Stage
from rankers.types import Document, Ranking
from tests.app.conftest import Serve, running, wait_until_ready
from tests.app.fakes import FakePipelines, Gate, WordRanker, WordRetriever, pipeline_of

RERANK = {"query": "red", "documents": ["grey", "red"]}
words = pipeline_of(WordRanker())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    source = FakePipelines({"words": lambda: words}, aliases={"rerank-v3.5": "words"}, only_rerank=("words",))
    with running(source, tmp_path_factory.mktemp("operations")) as client:
        yield client


# Request ids and errors of the framework


def test_a_request_id_is_taken_over_or_made_up(client: httpx.Client) -> None:
    assert client.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for strange in ("", "a b", "x" * 200, "é"):
        reply = client.get("/health", headers={b"x-request-id": strange.encode()})
        assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nope", 404, "there is no /nope; /docs lists what there is"),
        ("GET", "/web/nope.js", 404, "there is no /web/nope.js; /docs lists what there is"),
        ("GET", "/v1/rerank", 405, "/v1/rerank does not take GET; use POST"),
    ],
)
def test_errors_of_the_framework_have_the_same_shape(
    client: httpx.Client, method: str, path: str, status: int, message: str
) -> None:
    reply = client.request(method, path)
    assert reply.status_code == status
    content = reply.json()
    assert content["message"] == content["detail"] == content["error"] == message
    assert content["request_id"] == reply.headers["x-request-id"]


def test_what_should_not_happen_is_a_500_of_the_same_shape(serve: Serve) -> None:
    class Broken(FakePipelines):
        def describe(self, name: str) -> dict[str, object]:
            raise ZeroDivisionError("secret detail")

    client = serve(Broken({"words": lambda: words}), ready=False)
    reply = client.get("/v1/pipelines")
    assert reply.status_code == 500
    assert reply.json()["error_type"] == "Backend"
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert "secret" not in reply.text


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer k2"},
        {"authorization": "bearer  k2"},
        {"Api-Key": "k1"},
        {"X-API-Key": "k1"},
        {"Authorization": "Basic xyz", "api-key": "k2"},
    ],
)
def test_any_of_the_keys_in_any_header_will_do(serve: Serve, headers: dict[str, str]) -> None:
    client = serve(FakePipelines({"words": lambda: words}), api_keys="k1, k2")
    assert client.post("/v1/rerank", json=RERANK, headers=headers).status_code == 200


def test_without_a_key_only_operations_answer(serve: Serve) -> None:
    client = serve(FakePipelines({"words": lambda: words}), api_keys="k1,k2")
    for path in ("/health", "/ready", "/metrics", "/docs", "/"):
        assert client.get(path).status_code == 200
    wrong = [(b"authorization", b"Bearer wrong"), (b"authorization", b"k1"), (b"api-key", "ké".encode())]
    for headers in ([], *([header] for header in wrong)):
        for reply in (
            client.post("/v2/rerank", json=RERANK, headers=headers),
            client.post("/v1/events", content=b"not even json", headers=headers),
            client.get("/v1/models", headers=headers),
            client.get("/info", headers=headers),
        ):
            assert reply.status_code == 401
            assert reply.json()["error_type"] == "Unauthorized"
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "k1" not in reply.text


# What there is


def test_pipelines_and_models_are_listed(client: httpx.Client) -> None:
    pipelines = client.get("/v1/pipelines").json()
    assert (pipelines["default"], pipelines["aliases"]) == ("words", {"rerank-v3.5": "words"})
    (only,) = pipelines["pipelines"]
    assert (only["name"], only["retriever"], only["search"], only["rerank"]) == ("words", None, False, True)
    models = client.get("/v1/models").json()
    assert models["object"] == "list"
    assert [(model["id"], model["pipeline"], model["kind"]) for model in models["data"]] == [
        ("words", "words", "pipeline"),
        ("rerank-v3.5", "words", "pipeline"),
    ]
    assert models["cards"] == []


def test_the_documentation_describes_every_route(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/v1/search", "/v1/events", "/v1/rerank", "/v2/rerank", "/v1/pipelines", "/v1/models", "/info"} <= set(
        schema["paths"]
    )
    for methods in schema["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
    body = schema["paths"]["/v1/rerank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(body["oneOf"]) == 2
    assert schema["components"]["schemas"]["RerankRequest"]["examples"]
    error = schema["paths"]["/v1/rerank"]["post"]["responses"]["422"]["content"]["application/json"]["schema"]
    assert error["$ref"].endswith("/ErrorBody")
    assert client.get("/docs").status_code == 200


def test_the_page_and_its_files_are_served(client: httpx.Client) -> None:
    assert "<title>Shortlist</title>" in client.get("/").text
    assert client.get("/web/page.js").status_code == 200


# Health, readiness, metrics


def test_health_answers_while_pipelines_are_loading(serve: Serve) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load() -> Pipeline:
        loading.set()
        assert go_on.wait(10)
        return words

    client = serve(FakePipelines({"words": load}), ready=False)
    assert loading.wait(10)
    started = time.monotonic()
    assert client.get("/health").json() == {"status": "alive"}
    assert time.monotonic() - started < 1
    for reply in (client.get("/ready"), client.post("/v1/rerank", json=RERANK)):
        assert reply.status_code == 503
        assert reply.json()["error_type"] == "Unhealthy"
        assert "still being loaded" in reply.json()["message"]
    go_on.set()
    wait_until_ready(client)
    assert client.post("/v1/rerank", json=RERANK).status_code == 200


def test_ready_says_what_each_pipeline_can_do(serve: Serve) -> None:
    def no_index() -> Pipeline:
        raise NotReadyError("no index; run: shortlist index build")

    def broken() -> Pipeline:
        raise ConfigError("model is a teapot")

    source = FakePipelines(
        {"words": lambda: words, "find": no_index, "broken": broken}, only_rerank=("words",), only_retrieve=("find",)
    )
    client = serve(source)
    ends_at = time.monotonic() + 10
    while "loaded" in str(states := client.get("/ready").json()["pipelines"]):
        assert time.monotonic() < ends_at
    assert states == {
        "words": {"search": False, "rerank": True, "reason": None, "models": {}},
        "find": {"search": False, "rerank": False, "reason": "no index; run: shortlist index build", "models": {}},
        "broken": {"search": False, "rerank": False, "reason": "model is a teapot", "models": {}},
    }
    reply = client.post("/v1/rerank", json={**RERANK, "model": "broken"})
    assert reply.status_code == 503
    assert reply.json()["message"] == "pipeline 'broken' is not live: model is a teapot"


def test_a_pipeline_without_its_index_reranks_and_searches_once_there_is_one(serve: Serve) -> None:
    built = threading.Event()
    ranker = WordRanker()

    class Source(FakePipelines):
        def open(
            self, name: object = None, *, index: object = None, retriever: object = None, stages: object = None
        ) -> Pipeline:
            if retriever is None and not built.is_set():
                raise NotReadyError("no index; run: shortlist index build")
            chosen = retriever or WordRetriever([Document("a", "red")])
            return Pipeline("both", chosen, (Stage("words", ranker, 10),))  # type: ignore[arg-type]

    client = serve(Source({"both": lambda: words}), refresh_interval_s=0.02)
    assert client.post("/v1/rerank", json=RERANK).status_code == 200
    refused = client.post("/v1/search", json={"query": "red"})
    assert refused.status_code == 503
    assert "shortlist index build" in refused.json()["message"]
    built.set()
    ends_at = time.monotonic() + 10
    while (reply := client.post("/v1/search", json={"query": "red"})).status_code != 200:
        assert time.monotonic() < ends_at
    assert reply.json()["results"][0]["document"]["id"] == "a"


class Drifting(WordRanker):
    """Answers otherwise once it has drifted."""

    drifted = False

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        ranked = super().rank(rankings)
        return [Ranking.from_order(r.query, r.documents[::-1], previous=r) for r in ranked] if self.drifted else ranked


def test_ready_notices_that_golden_scores_have_moved(serve: Serve) -> None:
    ranker = Drifting()
    client = serve(FakePipelines({"words": lambda: pipeline_of(ranker)}), golden_interval_s=0)
    assert client.get("/ready").status_code == 200
    ranker.drifted = True
    reply = client.get("/ready")
    assert reply.status_code == 503
    assert "golden scores of pipeline 'words' moved by" in reply.json()["message"]


def test_ready_notices_that_a_model_fails(serve: Serve) -> None:
    def fail(_: Sequence[Ranking]) -> None:
        raise RuntimeError("out of memory")

    ranker = WordRanker()
    client = serve(FakePipelines({"words": lambda: pipeline_of(ranker)}), golden_interval_s=0)
    ranker.before = fail
    reply = client.get("/ready")
    assert reply.status_code == 503
    assert "pipeline 'words' does not answer" in reply.json()["message"]


def test_ready_does_not_ask_the_model_every_time(serve: Serve) -> None:
    ranker = WordRanker()
    client = serve(FakePipelines({"words": lambda: pipeline_of(ranker)}), golden_interval_s=1000)
    asked = len(ranker.batches)
    for _ in range(3):
        assert client.get("/ready").is_success
    assert len(ranker.batches) == asked


def test_a_click_log_that_is_not_there_does_not_keep_the_service_from_starting(serve: Serve) -> None:
    client = serve(FakePipelines({"words": lambda: words}), click_log_url="postgresql+psycopg://x@127.0.0.1:1/none")
    assert client.post("/v1/rerank", json=RERANK).status_code == 200


def test_metrics_count_requests_batches_and_tokens(client: httpx.Client) -> None:
    client.post("/v1/rerank", json=RERANK)
    client.post("/v1/rerank", json={})
    client.get("/no/such/route")
    client.request("BREW", "/health")
    text = client.get("/metrics").text
    assert re.search(r'shortlist_requests_total\{method="POST",route="/v1/rerank",status="200"\} \d', text)
    assert re.search(r'shortlist_requests_total\{method="POST",route="/v1/rerank",status="422"\} \d', text)
    assert re.search(r'shortlist_requests_total\{method="GET",route="unmatched",status="404"\} \d', text)
    assert 'method="other"' in text
    assert "/no/such/route" not in text
    assert re.search(r'shortlist_batch_items_count\{work="ranking"\} [1-9]', text)
    assert re.search(r'shortlist_tokens_total\{pipeline="words"\} [1-9]', text)
    assert 'shortlist_queue_tokens{work="ranking"} 0.0' in text
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")


# Clients that go away


def test_the_job_of_a_client_that_hangs_up_never_starts(serve: Serve) -> None:
    gate = Gate()
    ranker = WordRanker()
    client = serve(FakePipelines({"words": lambda: pipeline_of(ranker)}))
    ranker.batches.clear()
    ranker.before = gate
    body = json.dumps(RERANK).encode()
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address) as running_client, socket.create_connection(address) as leaving_client:
        running_client.sendall(head.encode() + body)
        assert gate.entered.wait(10)
        leaving_client.sendall(head.encode() + body)
        wait_for_queue(client, tokens=4)
        leaving_client.close()
        wait_for_queue(client, tokens=2)  # the job has left the queue while the worker was still busy
        gate.open.set()
        assert running_client.recv(100).startswith(b"HTTP/1.1 200")
    assert ranker.batches == [1]
    assert 'route="/v1/rerank",status="499"} 1.0' in client.get("/metrics").text


def wait_for_queue(client: httpx.Client, *, tokens: int) -> None:
    ends_at = time.monotonic() + 10
    line = f'shortlist_queue_tokens{{work="ranking"}} {tokens}.0'
    while line not in client.get("/metrics").text:
        assert time.monotonic() < ends_at, f"the queue never held {tokens} tokens"
        time.sleep(0.005)

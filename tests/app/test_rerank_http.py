"""Reranking over HTTP: the forms of request and reply, and what bad input gets."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from index.clicklog.store import SqlClickLog, open_click_log
from rankers.events import Impression, hash_key
from rankers.types import Document
from tests.app.conftest import Serve, running
from tests.app.fakes import MAX_WORDS, FakePipelines, Gate, WordRanker, pipeline_of, poisonous, slow

QUERY = "red green blue"
TEXTS = ["grey", "red green blue", "red", "red green"]
ORDER = [1, 3, 2, 0]
SIGMOID_OF_3 = 0.9525741268224334


def fake_pipelines() -> FakePipelines:
    return FakePipelines(
        {
            "words": lambda: words,
            "find": lambda: find,
            "shallow": lambda: shallow,
            "poisoned": lambda: poisoned,
            "slow": lambda: slowly,
        },
        aliases={"rerank-v3.5": "words"},
        only_rerank=("words", "shallow", "poisoned", "slow"),
        only_retrieve=("find",),
    )


words = pipeline_of(WordRanker())
find = pipeline_of(documents=[Document("a", "red")], name="find")
shallow = pipeline_of(WordRanker(), name="shallow", depth=2)
poisoned = pipeline_of(WordRanker(before=poisonous), name="poisoned")
slowly = pipeline_of(WordRanker(before=slow(0.3)), name="slow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rerank")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    limits: dict[str, Any] = {"max_request_bytes": 4_000_000, "max_query_chars": 1000}
    with running(fake_pipelines(), folder, click_log_salt="a pinch", **limits) as client:
        yield client


@pytest.fixture
def log(folder: Path) -> Iterator[SqlClickLog]:
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    yield log
    log.close()


def post(client: httpx.Client, body: object, *, path: str = "/v1/rerank", status: int = 200) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def refusal(client: httpx.Client, body: object, *, status: int = 422) -> str:
    """The message of an error, after checking the shape all errors have."""
    reply = client.post("/v2/rerank", json=body)
    assert reply.status_code == status, reply.text
    content = reply.json()
    assert set(content) == {"message", "detail", "error", "error_type", "request_id"}
    assert content["message"] == content["detail"] == content["error"]
    assert content["request_id"] == reply.headers["x-request-id"]
    assert content["error_type"] == {404: "NotFound"}.get(status, "Validation")
    return str(content["message"])


# Forms


@pytest.mark.parametrize(
    "path", ["/rerank", "/v1/rerank", "/v2/rerank", "/v1/v2/rerank", "/v1/reranking", "/reranking"]
)
def test_every_route_gives_the_superset(client: httpx.Client, path: str) -> None:
    body = {"model": "rerank-v3.5", "query": QUERY, "documents": TEXTS, "top_n": 3}
    reply = client.post(path, json=body)
    content = reply.json()
    assert [result["index"] for result in content["results"]] == ORDER[:3]
    assert content["data"] == content["results"]
    assert content["results"][0] == {"index": 1, "relevance_score": SIGMOID_OF_3, "score": SIGMOID_OF_3}
    assert content["model"] == "rerank-v3.5"
    assert content["top_k"] == 3
    assert content["usage"] == {"total_tokens": 7, "prompt_tokens": 7}
    assert "object" not in content
    meta = content["meta"]
    assert meta["api_version"] == {"version": "2" if "v2" in path else "1"}
    assert meta["billed_units"] == {"search_units": 1}
    assert meta["tokens"] == {"input_tokens": 7, "output_tokens": 0}
    assert (meta["pipeline"], meta["score_kind"], meta["partial"]) == ("words", "logit", False)
    assert (meta["degraded_reason"], meta["warnings"], meta["truncated"]) == (None, [], [])
    assert [stage["name"] for stage in meta["stages"]] == ["words"]
    assert reply.headers["x-compute-tokens"] == "7"


def test_scores_are_written_as_floats_and_never_increase(client: httpx.Client) -> None:
    raw = client.post("/v1/rerank", json={"query": "x", "documents": ["a", "b"], "deadline_ms": 1, "model": "slow"})
    assert '"relevance_score":1.0,' in raw.text
    scores = [result["relevance_score"] for result in post(client, {"query": QUERY, "documents": TEXTS})["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_nulls_where_clients_send_them(client: httpx.Client) -> None:
    optional = ("model", "top_n", "top_k", "return_documents", "rank_fields", "max_tokens_per_doc", "truncation")
    nulls = dict.fromkeys((*optional, "deadline_ms", "priority", "max_chunks_per_doc"))
    content = post(client, {"query": QUERY, "documents": TEXTS, **nulls})
    assert [result["index"] for result in content["results"]] == ORDER
    assert "document" not in content["results"][0]


def test_documents_come_back_as_they_were_sent(client: httpx.Client) -> None:
    documents = [
        "grey",
        {"text": "red green blue", "id": 17, "metadata": {"page": [3, None]}, "colour": "many"},
        {"title": "red", "text": "x"},
    ]
    content = post(client, {"query": QUERY, "documents": documents, "return_documents": True})
    assert [result["document"] for result in content["results"]] == [
        {"text": "red green blue", "id": "17", "metadata": {"page": [3, None]}, "colour": "many"},
        {"title": "red", "text": "x"},
        {"text": "grey"},
    ]
    assert content["results"][0]["id"] == "17"
    assert "id" not in content["results"][1]


def test_rank_fields_choose_what_is_read(client: httpx.Client) -> None:
    documents = [{"text": QUERY, "name": "grey"}, {"name": "red", "about": "green"}, {"text": "red"}]
    content = post(client, {"query": QUERY, "documents": documents, "rank_fields": ["name", "about"]})
    assert [result["index"] for result in content["results"]] == [1, 2, 0]


def test_voyage_form(client: httpx.Client) -> None:
    body = {"query": QUERY, "documents": TEXTS, "top_k": 2, "truncation": True, "return_documents": True}
    content = post(client, body)
    assert content["object"] == "list"
    assert "results" not in content
    assert [(item["index"], item["document"]) for item in content["data"]] == [(1, TEXTS[1]), (3, TEXTS[3])]
    assert content["usage"]["total_tokens"] == 7


def test_tei_form(client: httpx.Client) -> None:
    reply = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "return_text": True, "truncate": True})
    content = reply.json()
    assert [(item["index"], item["text"]) for item in content] == [(index, TEXTS[index]) for index in ORDER]
    assert content[0]["score"] == SIGMOID_OF_3
    for name in ("compute-time", "queue-time", "inference-time", "total-time", "compute-tokens"):
        assert reply.headers[f"x-{name}"].isdigit()
    raw = post(client, {"query": QUERY, "texts": TEXTS, "raw_scores": True}, path="/rerank")
    assert raw == [{"index": index, "score": score} for index, score in zip(ORDER, (3.0, 2.0, 1.0, 0.0), strict=True)]


def test_tei_info(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert info["model_id"] == "words"
    assert "reranker" in info["model_type"]
    assert info["max_client_batch_size"] == 1000
    assert info["max_input_length"] == MAX_WORDS


def test_a_pipeline_that_looks_at_the_first_few_says_so(client: httpx.Client) -> None:
    content = post(client, {"query": QUERY, "documents": TEXTS, "model": "shallow"})
    assert [result["index"] for result in content["results"]] == [1, 0, 2, 3]
    assert content["meta"]["warnings"] == [
        "stage 'words' ordered the first 2 of 4 documents; the others follow as they came"
    ]
    assert content["meta"]["score_kind"] == "rank"


def test_a_limit_that_has_no_effect_is_reported(client: httpx.Client) -> None:
    content = post(client, {"query": QUERY, "documents": TEXTS, "max_tokens_per_doc": 5})
    assert "max_tokens_per_doc 5 has no effect" in content["meta"]["warnings"][0]


# What is logged, where it is asked for

NAMED: list[Any] = [{"id": f"d{at}", "text": text, "features": {"at": at}} for at, text in enumerate(TEXTS)]


def logged(client: httpx.Client, log: SqlClickLog, **fields: object) -> tuple[Any, Impression]:
    reply = post(client, {"query": QUERY, "documents": NAMED, "log": True, **fields})
    impression = log.impression(reply["impression_id"])
    assert impression is not None
    return reply, impression


def test_what_is_shown_is_logged_under_the_ids_of_the_client(client: httpx.Client, log: SqlClickLog) -> None:
    reply, impression = logged(client, log, top_n=3, session="s 1", user="ada@example.org", layout="grid:2")
    assert impression.document_ids == ("d1", "d3", "d2") == tuple(result["id"] for result in reply["results"])
    assert impression.features == {"d1": {"at": 1.0}, "d3": {"at": 3.0}, "d2": {"at": 2.0}}
    assert (impression.query_text, impression.pipeline, impression.source) == (QUERY, "words", "served")
    assert impression.model_version.startswith("words@")
    assert impression.model_version.endswith("/words")
    assert (impression.layout, impression.feature_set) == ("grid:2", "")
    assert impression.session_key == hash_key("s 1", "a pinch")
    assert impression.user_key == hash_key("ada@example.org", "a pinch")
    event = {"impression_id": impression.id, "document_id": "d3", "id": "a click on a reranked document"}
    accepted = client.post("/v1/events", json={"events": [event]}).json()
    assert (accepted["added"], accepted["pending"]) == (1, 0)
    assert next(event.position for _, event in log.events() if event.impression_id == impression.id) == 2
    unseen = {"impression_id": impression.id, "document_id": "d0"}
    assert client.post("/v1/events", json={"events": [unseen]}).status_code == 422


def test_an_order_that_no_stage_made_is_logged_as_such(client: httpx.Client, log: SqlClickLog) -> None:
    _, impression = logged(client, log, model="slow", deadline_ms=50)
    assert impression.document_ids == ("d0", "d1", "d2", "d3")
    assert impression.model_version.endswith("/incoming")


def test_voyages_form_has_the_impression_too(client: httpx.Client, log: SqlClickLog) -> None:
    reply, impression = logged(client, log, truncation=True, top_k=1)
    assert reply["object"] == "list"
    assert impression.document_ids == ("d1",)


def test_without_log_nothing_is_logged_and_nothing_is_added_to_the_reply(
    client: httpx.Client, log: SqlClickLog
) -> None:
    before = log.status().impressions
    plain = post(client, {"query": QUERY, "documents": NAMED})
    # Other clients send fields of these names and mean something of their own.
    foreign = {"user": "", "session": 7, "layout": {"columns": 2}}
    for body in ({"log": False, **foreign}, {"log": None, **foreign}, foreign):
        reply = post(client, {"query": QUERY, "documents": NAMED, **body})
        assert list(reply) == list(plain) == ["id", "model", "results", "data", "usage", "meta", "top_k"]
        assert reply["results"] == plain["results"]
        assert reply["meta"]["warnings"] == []
    assert log.status().impressions == before


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (
            [{"id": "a", "text": "red"}, "green"],
            "documents.1.id is missing: log is true, and clicks name documents by id; send each document as an object "
            "with an id and a text",
        ),
        (
            [{"id": 7, "text": "red"}, {"id": "a", "text": "red"}, {"id": "7", "text": "green"}],
            "documents.2.id is '7', as documents.0.id is: what is logged shows each document once",
        ),
        ([{"id": "", "text": "red"}], "documents.0.id cannot be logged: String should have at least 1 character"),
        (
            [{"id": "x" * 513, "text": "red"}],
            "documents.0.id cannot be logged: String should have at most 512 characters",
        ),
    ],
)
def test_documents_that_clicks_could_not_name_are_not_logged(
    client: httpx.Client, documents: list[object], message: str
) -> None:
    assert refusal(client, {"query": QUERY, "documents": documents, "log": True}) == message
    assert client.post("/v2/rerank", json={"query": QUERY, "documents": documents}).status_code == 200


def test_texts_are_not_logged(client: httpx.Client) -> None:
    message = refusal(client, {"query": QUERY, "texts": TEXTS, "log": True})
    assert message.startswith("log is true, and texts have no ids that clicks could name; send documents")
    assert post(client, {"query": QUERY, "texts": TEXTS, "log": False})[0]["index"] == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layout", "grid:1", "layout is \"grid:1\": Input should be 'list', or 'grid:COLUMNS' with 2 columns or more"),
        ("user", "", 'user is "": String should have at least 1 character'),
        ("log", "perhaps", 'log is "perhaps": Input should be a valid boolean, unable to interpret input'),
    ],
)
def test_a_bad_field_about_logging_is_named(client: httpx.Client, field: str, value: object, message: str) -> None:
    assert refusal(client, {"query": QUERY, "documents": NAMED, "log": True, field: value}) == message


def test_reranking_survives_a_click_log_that_is_down(serve: Serve) -> None:
    client = serve(fake_pipelines(), click_log_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    reply = post(client, {"query": QUERY, "documents": NAMED, "log": True})
    assert [result["index"] for result in reply["results"]] == ORDER
    assert reply["impression_id"] is None
    assert "could not be logged" in reply["meta"]["warnings"][0]


# Deadlines and failures


def test_a_deadline_gives_the_order_that_came_in(client: httpx.Client) -> None:
    body = {"query": QUERY, "documents": TEXTS, "model": "slow", "deadline_ms": 50}
    reply = client.post("/v1/rerank", json=body)
    content = reply.json()
    assert content["meta"]["partial"]
    assert reply.headers["x-shortlist-partial"] == "true"
    assert [result["index"] for result in content["results"]] == [0, 1, 2, 3]


def test_a_failing_stage_is_reported_in_every_form(client: httpx.Client) -> None:
    content = post(client, {"query": QUERY, "documents": ["poison", "red"], "model": "poisoned"})
    assert [result["index"] for result in content["results"]] == [0, 1]
    assert "stage 'words' failed" in content["meta"]["degraded_reason"]
    reply = client.post("/rerank", json={"query": QUERY, "texts": ["poison", "red"], "model": "poisoned"})
    assert reply.headers["x-shortlist-degraded"] == "true"


def test_the_timeout_is_an_error(serve: Serve) -> None:
    gate = Gate()
    ranker = WordRanker()
    client = serve(FakePipelines({"words": lambda: pipeline_of(ranker)}), request_timeout_s=0.5)
    ranker.before = gate
    content = post(client, {"query": QUERY, "documents": TEXTS}, status=504)
    gate.open.set()
    assert content["error_type"] == "Timeout"
    assert "500 ms" in content["message"]


def test_a_full_queue_is_429_with_retry_after(serve: Serve) -> None:
    gate = Gate()
    ranker = WordRanker()
    client = serve(FakePipelines({"words": lambda: pipeline_of(ranker)}), max_queue_tokens=3)
    ranker.before = gate

    async def two() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30) as many:
            body = {"query": QUERY, "documents": ["red green", "blue"]}
            first = asyncio.create_task(many.post("/v1/rerank", json=body))
            await asyncio.to_thread(gate.entered.wait, 10)
            second = await many.post("/v1/rerank", json=body)
            gate.open.set()
            return [await first, second]

    first, second = asyncio.run(two())
    assert first.status_code == 200
    assert second.status_code == 429
    assert int(second.headers["retry-after"]) >= 1
    assert second.json()["error_type"] == "Overloaded"
    assert "the limit is 3" in second.json()["message"]


# Bad input: each answer names the field, the value and the limit


@pytest.mark.parametrize("query", ["", "   "])
def test_empty_query(client: httpx.Client, query: str) -> None:
    message = refusal(client, {"query": query, "documents": TEXTS})
    assert message == f"query is {json.dumps(query)}: String should have at least 1 character"


def test_empty_list(client: httpx.Client) -> None:
    message = refusal(client, {"query": QUERY, "documents": []})
    assert message == "documents is []: List should have at least 1 item after validation, not 0"
    assert refusal(client, {"query": QUERY, "texts": []}).startswith("texts is []: List should have at least 1 item")


def test_one_document(client: httpx.Client) -> None:
    content = post(client, {"query": QUERY, "documents": ["red"]})
    assert [result["index"] for result in content["results"]] == [0]


def test_duplicates_come_back_with_their_own_index(client: httpx.Client) -> None:
    documents = [{"id": "same", "text": "red"}, {"id": "same", "text": "red"}, "grey", "red"]
    content = post(client, {"query": QUERY, "documents": documents})
    assert [result["index"] for result in content["results"]] == [0, 1, 3, 2]


def test_a_thousand_documents(client: httpx.Client) -> None:
    texts = ["grey"] * 999 + ["red"]
    content = post(client, {"query": QUERY, "documents": texts})
    assert [result["index"] for result in content["results"]] == [999, *range(999)]
    too_many = refusal(client, {"query": QUERY, "documents": ["grey"] * 1001}, status=413)
    assert too_many == "documents has 1001 entries, the limit is 1000; send fewer"
    assert "texts has 1001 entries" in refusal(client, {"query": QUERY, "texts": ["grey"] * 1001}, status=413)


def test_a_document_of_a_megabyte_is_cut_and_reported(client: httpx.Client) -> None:
    long = "red green " + "grey " * 200_000
    content = post(client, {"query": QUERY, "documents": ["red", long, ""]})
    assert [result["index"] for result in content["results"]] == [1, 0, 2]
    assert content["meta"]["truncated"] == [{"index": 1, "tokens_used": MAX_WORDS, "tokens_total": 200_002}]


def test_null_fields(client: httpx.Client) -> None:
    assert refusal(client, {"query": None, "documents": TEXTS}) == "query is null: Input should be a valid string"
    assert refusal(client, {"query": QUERY, "documents": None}) == "documents is null: Input should be a valid list"
    message = refusal(client, {"query": QUERY, "documents": ["a", None]})
    assert message == "documents.1 is null: Input should be a string, or an object with a text"
    assert refusal(client, {"query": QUERY, "documents": ["a", {"text": None}]}).startswith("documents.1.text is null")
    assert refusal(client, {"query": QUERY, "documents": [{"id": "a"}]}).startswith("documents.0.text is missing")
    assert refusal(client, {"query": QUERY, "texts": ["a", None]}) == "texts.1 is null: Input should be a valid string"


def test_missing_fields(client: httpx.Client) -> None:
    assert refusal(client, {}) == "query is missing: Field required; documents is missing: Field required"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b"", "the body is empty"),
        (b'{"query": NaN}', "expected value at line 1 column 11"),
        (b'{"query": "\xff"}', "invalid unicode"),
        (b'"\\ud800"', "hex escape"),
        (b"[" * 1000, "recursion limit"),
    ],
)
def test_wrong_json(client: httpx.Client, content: bytes, problem: str) -> None:
    reply = client.post("/v1/rerank", content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert problem in reply.json()["message"]


def test_wrong_content_type(client: httpx.Client) -> None:
    reply = client.post("/v1/rerank", content=b"{}", headers={"content-type": "text/plain"})
    assert reply.status_code == 400
    assert reply.json()["message"] == "content-type is 'text/plain', must be application/json"


def test_not_an_object(client: httpx.Client) -> None:
    assert refusal(client, [1]).startswith("the body is [1]: Input should be a valid dictionary")


def test_unknown_model(client: httpx.Client) -> None:
    message = refusal(client, {"query": QUERY, "documents": TEXTS, "model": "gpt-17"}, status=404)
    assert message == "no pipeline or model 'gpt-17'; there are: words, find, shallow, poisoned, slow"


def test_a_model_that_only_retrieves(client: httpx.Client) -> None:
    message = refusal(client, {"query": QUERY, "documents": TEXTS, "model": "find"})
    assert message == "model is 'find', which cannot rerank; these can: words, shallow, poisoned, slow"


@pytest.mark.parametrize("name", ["top_n", "top_k", "deadline_ms"])
@pytest.mark.parametrize("value", [0, -1])
def test_too_small_numbers(client: httpx.Client, name: str, value: int) -> None:
    message = refusal(client, {"query": QUERY, "documents": TEXTS, name: value})
    assert message == f"{name} is {value}: Input should be greater than or equal to 1"


@pytest.mark.parametrize("top_n", [5, 10**30])
def test_top_n_above_the_number_of_documents_means_all(client: httpx.Client, top_n: int) -> None:
    content = post(client, {"query": QUERY, "documents": TEXTS, "top_n": top_n})
    assert len(content["results"]) == content["top_k"] == 4


def test_numbers_that_are_none(client: httpx.Client) -> None:
    message = refusal(client, {"query": QUERY, "documents": TEXTS, "top_n": "many"})
    assert message.startswith('top_n is "many": Input should be a valid integer')
    message = refusal(client, {"query": QUERY, "documents": [{"text": "a", "features": {"price": "high"}}]})
    assert message.startswith('documents.0.features.price is "high": Input should be a valid number')


def test_numbers_too_large_for_a_float(client: httpx.Client) -> None:
    huge = 10**400
    message = refusal(client, {"query": QUERY, "documents": TEXTS, "deadline_ms": huge})
    assert "less than or equal to 86400000" in message
    assert "documents.0.features.price" in refusal(
        client, {"query": QUERY, "documents": [{"text": "a", "features": {"price": huge}}]}
    )
    documents = [{"text": "a", "id": huge, "metadata": {"n": huge, "x": [huge]}}]
    body = {"query": QUERY, "documents": documents, "top_n": huge, "return_documents": True}
    assert post(client, body)["results"][0]["document"]["metadata"] == documents[0]["metadata"]


def test_a_query_over_the_limit(client: httpx.Client) -> None:
    message = refusal(client, {"query": "x" * 1001, "documents": TEXTS}, status=413)
    assert message == "query has 1001 characters, the limit is 1000; shorten it"


def test_a_body_over_the_limit(client: httpx.Client) -> None:
    message = refusal(client, {"query": QUERY, "documents": ["x" * 4_000_000]}, status=413)
    assert "over 4000000 bytes" in message


def test_a_streamed_body_over_the_limit_is_refused_too(client: httpx.Client) -> None:
    def chunks() -> Any:
        for _ in range(50):
            yield b" " * 100_000

    reply = client.post("/v1/rerank", content=chunks(), headers={"content-type": "application/json"})
    assert reply.status_code == 413


def test_many_problems_are_not_all_listed(client: httpx.Client) -> None:
    message = refusal(client, {"query": QUERY, "documents": [None] * 100})
    assert message.endswith("and 95 more")
    assert len(message) < 1000


def test_before_anything_is_loaded_it_is_503() -> None:
    """The only status that tells clients to go elsewhere is kept for when nothing is live."""

    async def ask() -> httpx.Response:
        service = create_app(Settings(click_log_url="sqlite://"), fake_pipelines())
        transport = httpx.ASGITransport(service)  # does not run the lifespan, so nothing is ever loaded
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS})

    reply = asyncio.run(ask())
    assert reply.status_code == 503
    assert "still being loaded" in reply.json()["message"]

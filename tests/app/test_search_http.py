"""Searching over HTTP."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.clicklog.store import open_click_log
from rankers.consistency import BothOrders
from rankers.listwise.permutation import Repair
from rankers.pipeline import Pipeline, Stage
from rankers.types import Document, Evidence, Ranking, WindowEvidence
from tests.app.conftest import Serve, running
from tests.app.fakes import FakePipelines, WordRanker, WordRetriever, pipeline_of, slow

DOCUMENTS = [
    Document("sky", "blue", title="The sky", features={"age": 3.0}, metadata={"page": 1}),
    Document("flag", "red white blue"),
    Document("light", "red green blue"),
    Document("ash", "grey"),
]
QUERY = "red green blue"


class Explaining(WordRanker):
    """Says which window it saw."""

    def rank(self, rankings: Any) -> list[Ranking]:
        return [
            Ranking.from_order(
                ranking.query,
                tuple(reversed(ranking.documents)),
                previous=ranking,
                evidence=Evidence(
                    generated_tokens=7,
                    windows=(
                        WindowEvidence(ranking.ids, (0.5,) * len(ranking)),
                        WindowEvidence(ranking.ids, failure="the server has gone"),
                    ),
                ),
            )
            for ranking in rankings
        ]


class Writing(WordRanker):
    """Believes the order shown, and its answers are not in order."""

    def rank(self, rankings: Any) -> list[Ranking]:
        return [
            Ranking.from_order(
                ranking.query,
                ranking.documents,
                previous=ranking,
                evidence=Evidence(
                    windows=(
                        WindowEvidence(ranking.ids, repairs=(Repair.FORM, Repair.MISSING)),
                        WindowEvidence(ranking.ids, repairs=(Repair.MISSING,)),
                        WindowEvidence(ranking.ids, repairs=(Repair.NO_ANSWER,)),
                    )
                ),
            )
            for ranking in rankings
        ]


def pipelines() -> FakePipelines:
    retriever = WordRetriever(DOCUMENTS)
    made = {
        "two": Pipeline("two", retriever, (Stage("upside-down", Explaining(), 2),)),
        "find": Pipeline("find", retriever),
        "rerank": pipeline_of(WordRanker(), name="rerank"),
        "poisoned": Pipeline("poisoned", retriever, (Stage("bad", WordRanker(before=fail_on_light), 10),)),
        "slow": Pipeline("slow", retriever, (Stage("slow", WordRanker(before=slow(0.3)), 10),)),
        "written": Pipeline("written", retriever, (Stage("twice", BothOrders(Writing()), 2),)),
    }
    return FakePipelines(
        {name: partial(made.__getitem__, name) for name in made},
        aliases={"best": "two"},
        only_rerank=("rerank",),
        only_retrieve=("find",),
    )


def fail_on_light(rankings: Any) -> None:
    if any("light" in ranking.ids for ranking in rankings):
        raise RuntimeError("too bright")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with running(pipelines(), folder, max_top_k=50) as client:
        yield client


def post(client: httpx.Client, path: str, body: object, *, status: int = 200) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def search(client: httpx.Client, **fields: object) -> Any:
    return post(client, "/v1/search", {"query": QUERY, **fields})


def test_a_result_says_where_each_stage_put_it(client: httpx.Client) -> None:
    reply = search(client, top_k=3)
    assert reply["pipeline"] == "two"
    assert [(stage["name"], stage["score_kind"], stage["ids"]) for stage in reply["stages"]] == [
        ("retrieve", "lexical", ["light", "flag", "sky"]),
        ("upside-down", "rank", ["flag", "light", "sky"]),
    ]
    assert all(stage["ms"] >= 0 for stage in reply["stages"])
    first, _, last = reply["results"]
    assert first["document"]["id"] == "flag"
    assert (first["rank"], first["score"], first["relevance_score"]) == (1, 1.0, 1.0)
    assert first["stages"]["retrieve"] == {"rank": 2, "score": 2.0, "score_kind": "lexical"}
    assert first["stages"]["upside-down"] == {"rank": 1, "score": 1.0, "score_kind": "rank"}
    assert last["document"] == {"id": "sky", "title": "The sky", "text": "blue", "metadata": {"page": 1}}
    meta = reply["meta"]
    assert (meta["partial"], meta["degraded_reason"], meta["score_kind"]) == (False, None, "rank")


def test_a_pipeline_is_chosen_by_name_alias_or_model(client: httpx.Client) -> None:
    assert search(client, pipeline="find")["pipeline"] == "find"
    assert search(client, model="best")["pipeline"] == "two"
    assert search(client, pipeline=None, model=None, top_k=None, explain=None)["pipeline"] == "two"


def test_a_filter_decides_what_may_be_found(client: httpx.Client) -> None:
    def found(**fields: object) -> list[str]:
        return [result["document"]["id"] for result in search(client, pipeline="find", **fields)["results"]]

    assert found(filter={"field": "page", "gte": 1, "lt": 2}) == ["sky"]
    assert found(filter={"not": {"field": "page", "in": [1, 2]}}) == ["light", "flag"]
    assert found(filter={"field": "page", "eq": "1"}) == []
    assert found(filter=None) == found()


def test_explain_adds_features_and_windows(client: httpx.Client) -> None:
    reply = search(client, explain=True)
    nothing, failure = {"repairs": [], "trace": "", "failure": ""}, {"failure": "the server has gone"}
    assert reply["explain"] == [
        {"stage": "upside-down", "document_ids": ["light", "flag"], "logits": [0.5, 0.5]} | nothing,
        {"stage": "upside-down", "document_ids": ["light", "flag"], "logits": []} | nothing | failure,
    ]
    assert reply["results"][2]["document"]["features"] == {"age": 3.0}
    assert "explain" not in search(client)


def test_windows_that_could_not_be_read_are_reported(client: httpx.Client) -> None:
    meta = search(client)["meta"]
    assert meta["degraded_reason"] is None
    assert meta["warnings"] == [
        "1 of 2 windows of stage 'upside-down' could not be read and kept their order: the server has gone"
    ]
    assert meta["tokens"]["output_tokens"] == 7


def test_a_stage_says_how_far_its_orders_agree_and_what_was_repaired(client: httpx.Client) -> None:
    reply = search(client, pipeline="written", explain=True)
    retrieved, twice = reply["stages"]
    assert twice["order_consistency"] == -1.0
    assert twice["repairs"] == {"missing": 4, "form": 2, "no_answer": 2}
    assert [window["repairs"] for window in reply["explain"]] == [["form", "missing"], ["missing"], ["no_answer"]] * 2
    assert not {"order_consistency", "repairs"} & retrieved.keys()
    assert reply["meta"]["warnings"] == ["2 of 6 windows of stage 'twice' got no usable answer and kept their order"]
    documents = [document.text for document in DOCUMENTS]
    reranked = post(client, "/v1/rerank", {"model": "written", "query": QUERY, "documents": documents})
    assert [stage["order_consistency"] for stage in reranked["meta"]["stages"]] == [-1.0]


def test_nothing_found_is_an_empty_list(client: httpx.Client) -> None:
    reply = post(client, "/v1/search", {"query": "zebra"})
    assert reply["results"] == []
    assert reply["impression_id"]


def test_a_failing_stage_is_reported(client: httpx.Client) -> None:
    reply = search(client, pipeline="poisoned")
    assert [result["document"]["id"] for result in reply["results"]] == ["light", "flag", "sky"]
    assert "stage 'bad' failed" in reply["meta"]["degraded_reason"]
    assert [stage["name"] for stage in reply["stages"]] == ["retrieve"]


def test_a_deadline_gives_what_was_found(client: httpx.Client) -> None:
    reply = search(client, pipeline="slow", deadline_ms=150)
    assert reply["meta"]["partial"]
    assert [stage["name"] for stage in reply["stages"]] == ["retrieve"]


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"query": ""}, 422, 'query is "": String should have at least 1 character'),
        ({"filter": {"field": ""}}, 422, "filter.field is '': it must be the name of a metadata field"),
        ({"filter": {"and": []}}, 422, "filter.and is []: it takes a list of at least one filter"),
        ({"filter": "page"}, 422, 'filter is "page": Input should be a valid dictionary'),
        ({"query": None}, 422, "query is null: Input should be a valid string"),
        ({"top_k": 0}, 422, "top_k is 0: Input should be greater than or equal to 1"),
        ({"top_k": 51}, 413, "top_k is 51, the limit is 50"),
        (
            {"pipeline": "nope"},
            404,
            "no pipeline or model 'nope'; there are: two, find, rerank, poisoned, slow, written",
        ),
        (
            {"pipeline": "rerank"},
            422,
            "model is 'rerank', which cannot search; these can: two, find, poisoned, slow, written",
        ),
        ({"query": "x" * 9000}, 413, "query has 9000 characters, the limit is 8192; shorten it"),
    ],
)
def test_bad_input(client: httpx.Client, fields: dict[str, object], status: int, message: str) -> None:
    assert post(client, "/v1/search", {"query": QUERY, **fields}, status=status)["message"] == message


def test_what_is_shown_is_logged(client: httpx.Client, folder: Path) -> None:
    shown = search(client, pipeline="two", top_k=2)
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    impression = log.impression(shown["impression_id"])
    log.close()
    assert impression is not None
    assert impression.document_ids == ("flag", "light")
    assert (impression.query_text, impression.pipeline) == (QUERY, "two")
    assert impression.model_version.startswith("two@")
    assert impression.model_version.endswith("/upside-down")


def test_features_of_shown_documents_are_logged(client: httpx.Client, folder: Path) -> None:
    shown = search(client, pipeline="find")
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    impression = log.impression(shown["impression_id"])
    log.close()
    assert impression is not None
    assert impression.features == {"sky": {"age": 3.0}}


def test_search_survives_a_click_log_that_is_down(serve: Serve) -> None:
    client = serve(pipelines(), click_log_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    reply = search(client)
    assert [result["document"]["id"] for result in reply["results"]] == ["flag", "light", "sky"]
    assert reply["impression_id"] is None
    assert "could not be logged" in reply["meta"]["warnings"][0]

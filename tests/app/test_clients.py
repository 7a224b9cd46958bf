"""Client packages that people have, unmodified, against the service with real models."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest
from langchain_cohere import CohereRerank
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

from index.pipelines import load_pipelines
from tests.app.conftest import running

ROOT = Path(__file__).parents[2]
COHERE_7 = ROOT / "var" / "clients" / "cohere7"
CONFIG = """
models_dir: {models_dir}
default: first
aliases: {{rerank-v3.5: first}}
pipelines:
  first:
    stages:
      - kind: listwise
        model: smollm2-135m
        depth: 20
        strategy: {{kind: sliding, size: 10, stride: 5}}
        passage_tokens: 30
  cross-encoder:
    stages: [{{kind: cross-encoder, model: minilm, depth: 100}}]
"""
QUERY = "how is a file closed for sure"
TEXTS = [
    "A lambda expression makes an anonymous function.",
    "The with statement closes the file however the block ends.",
    "The finally clause runs whatever happened before.",
]
MODELS = ["rerank-v3.5", "cross-encoder"]


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, minilm: str, smollm2: str, models_dir: Path
) -> Iterator[httpx.Client]:
    assert Path(minilm).is_dir()
    assert Path(smollm2).is_dir()
    folder = tmp_path_factory.mktemp("clients")
    (folder / "shortlist.yaml").write_text(CONFIG.format(models_dir=models_dir.resolve()))
    with running(load_pipelines(folder / "shortlist.yaml"), folder) as client:
        yield client


@pytest.fixture
def url(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def expected_order(client: httpx.Client, model: str) -> list[int]:
    reply = client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS, "model": model}).json()
    assert reply["meta"]["degraded_reason"] is None
    return [result["index"] for result in reply["results"]]


def assert_scores(scores: list[float]) -> None:
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("model", MODELS)
def test_cohere_5_v2(client: httpx.Client, url: str, model: str) -> None:
    assert cohere.__version__.startswith("5.")
    with cohere.ClientV2("key", base_url=url) as api:
        reply = api.rerank(query=QUERY, documents=TEXTS, model=model, top_n=10)
    assert [result.index for result in reply.results] == expected_order(client, model)
    assert_scores([result.relevance_score for result in reply.results])
    assert reply.meta is not None
    assert reply.meta.billed_units is not None
    assert reply.meta.billed_units.search_units == 1


@pytest.mark.parametrize("model", MODELS)
def test_cohere_5_v1(client: httpx.Client, url: str, model: str) -> None:
    documents: list[Any] = [{"text": text} for text in TEXTS]
    with cohere.Client("key", base_url=url) as api:
        reply = api.rerank(query=QUERY, documents=documents, model=model, top_n=2, return_documents=True)
    order = expected_order(client, model)[:2]
    assert [result.index for result in reply.results] == order
    assert [result.document.text for result in reply.results if result.document] == [TEXTS[i] for i in order]


def test_cohere_5_may_ask_for_an_impression_and_send_clicks(client: httpx.Client, url: str) -> None:
    documents: list[Any] = [{"id": f"d{at}", "text": text} for at, text in enumerate(TEXTS)]
    with cohere.Client("key", base_url=url) as api:
        reply = api.rerank(
            query=QUERY,
            documents=documents,
            model="cross-encoder",
            request_options={"additional_body_parameters": {"log": True, "user": "ada"}},
        )
    assert [result.index for result in reply.results] == expected_order(client, "cross-encoder")
    event = {"impression_id": reply.model_dump()["impression_id"], "document_id": f"d{reply.results[0].index}"}
    accepted = client.post("/v1/events", json={"events": [event | {"position": 1}]}).json()
    assert (accepted["added"], accepted["pending"]) == (1, 0)


def test_cohere_5_raises_its_own_errors(url: str) -> None:
    with cohere.ClientV2("key", base_url=url) as api:
        with pytest.raises(cohere.UnprocessableEntityError, match="query is"):
            api.rerank(query="", documents=TEXTS, model="first")
        with pytest.raises(cohere.NotFoundError, match="gpt-17"):
            api.rerank(query=QUERY, documents=TEXTS, model="gpt-17")


def test_cohere_7(client: httpx.Client, url: str, cohere_7: Path) -> None:
    replies = run_cohere_7(cohere_7, url)
    order = expected_order(client, "first")
    assert [index for index, _ in replies["v2"]] == order
    assert_scores([score for _, score in replies["v2"]])
    assert [(index, text) for index, _, text in replies["v1"]] == [(i, TEXTS[i]) for i in order[:2]]


def run_cohere_7(folder: Path, url: str) -> Any:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("cohere7_client.py")), QUERY, "first", *TEXTS],
        env={**os.environ, "PYTHONPATH": str(folder), "CO_API_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def cohere_7() -> Path:
    """Folder with cohere 7, which langchain-cohere does not let into this environment."""
    if not (COHERE_7 / "cohere").is_dir():
        print(f"installing cohere 7 into {COHERE_7}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(COHERE_7), "cohere>=7,<8"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"cohere 7 could not be installed; run: make var/clients/cohere7\n{done.stderr}")
    return COHERE_7


@pytest.mark.parametrize("model", MODELS)
def test_langchain_cohere(client: httpx.Client, url: str, model: str) -> None:
    reranker = CohereRerank(cohere_api_key="key", base_url=url, model=model, top_n=2)
    documents = [LangChainDocument(page_content=text, metadata={"at": at}) for at, text in enumerate(TEXTS)]
    objects = [{"title": "x", "text": text} for text in TEXTS]
    with reranker.client:
        ranked = reranker.compress_documents(documents, QUERY)
        everything = reranker.rerank(objects, QUERY, rank_fields=["text"], top_n=None)
    assert [document.metadata["at"] for document in ranked] == expected_order(client, model)[:2]
    assert_scores([document.metadata["relevance_score"] for document in ranked])
    assert sorted(result["index"] for result in everything) == [0, 1, 2]


def test_llama_index_tei(client: httpx.Client, url: str) -> None:
    reranker = TextEmbeddingInference(base_url=url, top_n=2)
    nodes = [NodeWithScore(node=TextNode(id_=str(at), text=text), score=0.1) for at, text in enumerate(TEXTS)]
    ranked = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert [int(node.node.node_id) for node in ranked] == expected_order(client, "first")[:2]
    assert_scores([node.score for node in ranked if node.score is not None])


@pytest.mark.parametrize("model", MODELS)
def test_a_document_of_a_megabyte_is_cut_by_the_model_and_reported(client: httpx.Client, model: str) -> None:
    body = {"query": QUERY, "documents": [TEXTS[1], "word " * 200_000], "model": model}
    reply = client.post("/v2/rerank", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    (truncated,) = reply.json()["meta"]["truncated"]
    assert truncated["index"] == 1
    assert truncated["tokens_used"] < 600
    assert truncated["tokens_total"] == 200_000


def test_more_documents_than_a_window_come_back_in_an_order(client: httpx.Client) -> None:
    texts = [f"{text} ({at})" for at in range(5) for text in TEXTS]
    reply = client.post("/v1/rerank", json={"query": QUERY, "documents": texts}).json()
    assert sorted(result["index"] for result in reply["results"]) == list(range(15))
    assert reply["meta"]["score_kind"] == "rank"
    assert reply["meta"]["degraded_reason"] is None

"""A model's way as people go it: trained, compared, promoted, served over HTTP, and taken back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli.main import build_cli
from index.pipelines import load_pipelines
from index.stages import ListwiseSpec, ModelSource, load_ranker
from rankers.registry import ModelRegistry
from rankers.types import Document, Query, Ranking
from tests.app.conftest import running
from tests.training.lists import TOPICS, write_dev_lists, write_tiny_llama, write_topic_lists

CONFIG = """
models_dir: models
default: trained
pipelines:
  trained:
    stages: [{kind: listwise, name: first, model: my-first, depth: 10, device: cpu, passage_tokens: 10}]
"""
TEXTS = [f"a long note about the {topic} and its past" for topic in TOPICS]
QUERY = "where is the comet"


def shortlist(*arguments: str) -> str:
    done = CliRunner().invoke(build_cli(), arguments)
    assert done.exit_code == 0, done.output
    return done.output


def order_of(folder: Path, label: str) -> list[int]:
    """Give the order that a version itself has for the texts."""
    spec = ListwiseSpec(kind="listwise", model="my-first", depth=10, device="cpu", passage_tokens=10)
    source = ModelSource(str(folder / "models" / label.replace("@", "/")), label)
    ranker = load_ranker(spec, source, models_dir=folder / "models", once=lambda _, load: load())
    documents = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    (ranked,) = ranker.rank([Ranking.from_order(Query("q", QUERY), documents)])
    return [int(document_id) for document_id in ranked.ids]


def state(client: httpx.Client) -> Any:
    return client.get("/v1/pipelines").json()["pipelines"][0]


def wait_until_served(client: httpx.Client, label: str) -> None:
    ends_at = time.monotonic() + 20
    while state(client)["models"] != {"first": label}:
        assert time.monotonic() < ends_at, state(client)
        time.sleep(0.02)


def rerank(client: httpx.Client) -> list[int]:
    reply = client.post("/v1/rerank", json={"model": "trained", "query": QUERY, "documents": TEXTS})
    assert reply.status_code == 200, reply.text
    return [result["index"] for result in reply.json()["results"]]


def test_a_model_is_trained_compared_promoted_served_and_taken_back(
    tmp_path: Path, smollm2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # tables are as wide as the terminal
    (tmp_path / "shortlist.yaml").write_text(CONFIG)
    for seed, name in enumerate(("tiny", "other")):
        write_tiny_llama(tmp_path / name, smollm2, seed=seed)
    write_topic_lists(tmp_path / "lists.jsonl")
    write_dev_lists(tmp_path / "dev.jsonl")
    recipe = ("lists.jsonl", "--dev", "dev.jsonl", "--name", "my-first", "--set", "passage_tokens=10")
    first_run = ("--model", "./tiny", "--set", "steps=1", "--folder", "one", "--promote")
    told = shortlist("train", "listwise", *recipe, *first_run)
    assert "step 1: dev nDCG@10" in told
    assert "ranking loss" not in told  # the bar shows the loss of each step; its parts are in the history
    assert "my-first@" in told
    registry = ModelRegistry(tmp_path / "models")
    first = registry.card("my-first").label

    pipelines = load_pipelines(tmp_path / "shortlist.yaml")
    with running(pipelines, tmp_path, refresh_interval_s=0.05) as client:
        wait_until_served(client, first)
        assert rerank(client) == order_of(tmp_path, first)
        shortlist("train", "listwise", *recipe, "--model", "./other", "--set", "steps=1", "--folder", "two")
        (second,) = {card.label for card, live in registry.cards() if not live}
        version = second.partition("@")[2]
        assert state(client)["models"] == {"first": first}  # not live until somebody promotes it

        listed = shortlist("models", "list")
        assert all(label.partition("@")[2] in listed for label in (first, second))
        assert '"live": false' in shortlist("models", "show", "my-first", version)
        assert "dev nDCG@10" in shortlist("models", "compare", "my-first")
        assert f"{second} is live, before it was {first.partition('@')[2]}" in shortlist(
            "models", "promote", "my-first", version, "--why", "dev nDCG@10"
        )
        wait_until_served(client, second)
        assert rerank(client) == order_of(tmp_path, second) != order_of(tmp_path, first)

        assert f"{first} is live again" in shortlist("models", "rollback", "my-first")
        wait_until_served(client, first)
        assert rerank(client) == order_of(tmp_path, first)
        assert state(client)["reason"] is None
    pipelines.close()

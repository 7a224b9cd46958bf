"""Windows of five, which small models read best: every strategy takes them from `shortlist.yaml` and serves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from index.pipelines import load_pipelines
from tests.app.conftest import running
from tests.rankers.models import byte_tokenizer, random_network, tiny_llama_config

STAGES: dict[str, dict[str, Any]] = {
    "sliding": {"strategy": {"kind": "sliding", "size": 5, "stride": 2}},
    "tournament": {"strategy": {"kind": "tournament", "size": 5, "winners": 2}},
    "blocks": {"strategy": {"kind": "blocks", "size": 5, "repeats": 2, "soft": True}},
    "setwise": {"strategy": {"kind": "heap", "children": 4}, "reader": "setwise"},
    "elimination": {"strategy": {"kind": "elimination", "size": 5, "drop": 2}},
    "groupwise": {"strategy": {"kind": "groupwise", "size": 5}, "reader": "grades", "template": "group_grades"},
}
TEXTS = [f"passage {i} says {'abcdefghij'[i % 10] * 30}" for i in range(23)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with a pipeline for each strategy, over a random Llama whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("small-windows")
    random_network(tiny_llama_config(max_position_embeddings=2048)).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(str(folder / "model"))
    common = {
        "kind": "listwise",
        "model": str(folder / "model"),
        "dtype": "float32",
        "template": "first_small",
        "depth": 100,
        "passage_tokens": 28,
    }
    pipelines = {name: {"stages": [common | stage]} for name, stage in STAGES.items()}
    config = {"models_dir": str(folder / "models"), "default": "blocks", "pipelines": pipelines}
    (folder / "shortlist.yaml").write_text(json.dumps(config))  # JSON is YAML
    with running(load_pipelines(folder / "shortlist.yaml"), folder) as client:
        yield client


@pytest.mark.parametrize("name", STAGES)
def test_every_strategy_serves_windows_of_five(client: httpx.Client, name: str) -> None:
    reply = client.post("/v1/rerank", json={"model": name, "query": "which letter", "documents": TEXTS}).json()
    assert sorted(result["index"] for result in reply["results"]) == list(range(len(TEXTS)))
    assert reply["meta"]["degraded_reason"] is None
    # A random model writes no grades, and a reply says so.
    unread = "5 of 5 windows of stage 'first' got no usable answer and kept their order"
    assert reply["meta"]["warnings"] == ([unread] if name == "groupwise" else [])

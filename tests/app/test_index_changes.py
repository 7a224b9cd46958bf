"""Documents are added and deleted while the service answers: it finds them without a restart, and no request fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.directory import DenseChoice, IndexDirectory
from index.pipelines import load_pipelines
from rankers.types import Document
from tests.app.conftest import running
from tests.index.documents import ANIMALS

CONFIG = """
index: index
models_dir: {models_dir}
default: both
pipelines:
  both: {{retriever: {{kind: hybrid}}}}
"""
QUERIES = ("whales in the ocean", "a sleeping cat", "sledge dogs")


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["spann", "flat"])
def test_changes_are_found_without_a_restart(tmp_path: Path, models_dir: Path, kind: DenseChoice) -> None:
    (tmp_path / "shortlist.yaml").write_text(CONFIG.format(models_dir=models_dir.resolve()))
    pipelines = load_pipelines(tmp_path / "shortlist.yaml")
    encoder = pipelines.encoder()
    directory = IndexDirectory(tmp_path / "index")
    directory.corpus.append(ANIMALS)
    directory.build(encoder=encoder, encoder_name="minilm", dense_kind=kind)
    ended = threading.Event()
    statuses: list[int] = []

    def ids(client: httpx.Client, query: str) -> list[str]:
        reply: Any = client.post("/v1/search", json={"query": query, "top_k": 2})
        statuses.append(reply.status_code)
        return [result["document"]["id"] for result in reply.json().get("results", [])]

    def search_on(client: httpx.Client) -> None:
        while not ended.is_set():
            for query in QUERIES:
                ids(client, query)

    def change(added: Document, deleted: str) -> None:
        directory.change([added], [deleted], encoder=encoder, encoder_name="minilm")

    with running(pipelines, tmp_path, refresh_interval_s=0.02, golden_interval_s=0) as client:
        wait_until(lambda: "cat" in ids(client, "a sleeping cat"))
        statuses.clear()
        searching = threading.Thread(target=search_on, args=(client,))
        searching.start()
        try:
            change(Document("whale", "Whales swim in the sea."), "nobody")
            wait_until(lambda: ids(client, "whales in the ocean")[0] == "whale")
            for number in range(6):  # faster than the service looks
                change(Document(f"n{number}", f"Number {number} of many."), "cat")
            change(Document("dog", "Huskies pull sledges through snow."), "bird")
            wait_until(lambda: ids(client, "huskies with a sledge")[0] == "dog")
            assert "cat" not in ids(client, "a sleeping cat")
        finally:
            ended.set()
            searching.join()
    pipelines.close()
    assert set(statuses) == {200}

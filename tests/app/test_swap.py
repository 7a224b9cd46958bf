"""The live model changes while the service answers: no failed request, no order without its version, no skew."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.main import build_cli
from index.clicklog.store import open_click_log
from index.directory import IndexDirectory
from index.pipelines import load_pipelines
from rankers.calibration import CALIBRATION_FILE, fit_calibration
from rankers.events import Impression
from rankers.ltr.features import load_feature_set
from rankers.ltr.models import load_numeric_ranker
from rankers.pipeline import Pipeline, Stage
from rankers.registry import ModelCard, ModelRegistry
from rankers.types import Document, ScoreKind
from tests.app.conftest import running
from tests.app.fakes import FakePipelines, WordRanker, pipeline_of
from tests.rankers.ltr.linear import add_linear

CONFIG = """
index: index
models_dir: models
default: learned
pipelines:
  words: {retriever: {kind: bm25}}
  learned:
    retriever: {kind: bm25}
    stages: [{kind: ltr, model: ranker}]
  both: {interleave: [words, learned]}
"""
DOCUMENTS = [
    Document(f"d{number}", "cat " + "purr " * number, metadata={"date": f"2024-01-{number + 1:02d}"})
    for number in range(12)
]
OLDEST_FIRST = {"freshness": -1.0, "coverage": 0.5}
NEWEST_FIRST = {"bm25": 0.001, "freshness": 1.0}
ORDERS = {
    "": tuple(document.id for document in DOCUMENTS),  # BM25 prefers short documents
    "ranker@v1": tuple(document.id for document in DOCUMENTS[::-1]),
    "ranker@v2": tuple(document.id for document in DOCUMENTS),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents, an index, and a registry without a model."""
    (tmp_path / "shortlist.yaml").write_text(CONFIG)
    directory = IndexDirectory(tmp_path / "index")
    directory.corpus.append(DOCUMENTS)
    directory.build(encoder=None, encoder_name=None)
    return tmp_path


@pytest.fixture
def registry(folder: Path) -> ModelRegistry:
    """Two versions, the first of them live."""
    registry = ModelRegistry(folder / "models")
    add_linear(registry, "v1", NEWEST_FIRST)
    add_linear(registry, "v2", OLDEST_FIRST, promote=False)
    return registry


@contextmanager
def service(folder: Path) -> Iterator[httpx.Client]:
    pipelines = load_pipelines(folder / "shortlist.yaml")
    with running(pipelines, folder, refresh_interval_s=0.05, golden_interval_s=0) as client:
        yield client
    pipelines.close()


def search(client: httpx.Client, **body: object) -> Any:
    reply = client.post("/v1/search", json={"query": "cat", "top_k": 12, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def state(client: httpx.Client, name: str = "learned") -> Any:
    pipelines = client.get("/v1/pipelines").json()["pipelines"]
    return next(pipeline for pipeline in pipelines if pipeline["name"] == name)


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def logged(folder: Path) -> list[Impression]:
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    try:
        return [impression for _, impression in log.impressions()]
    finally:
        log.close()


def model_of(impression: Impression) -> str:
    """Version of the registry that an impression names; empty if it was served without one."""
    return impression.model_version.rpartition("/ltr")[2].lstrip(":")


def search_until(stop: threading.Event, client: httpx.Client, *, at_least: int = 1) -> list[int]:
    """Search until told to stop; gives the status of every reply."""
    statuses: list[int] = []
    while not stop.is_set() or len(statuses) < at_least:
        statuses.append(client.post("/v1/search", json={"query": "cat", "top_k": 12}).status_code)
    return statuses


def test_the_live_model_changes_under_load_without_a_failed_request(folder: Path, registry: ModelRegistry) -> None:
    stop = threading.Event()

    with service(folder) as client, ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(search_until, stop, client, at_least=15) for _ in range(4)]
        try:
            for _ in range(4):
                for version in ("v2", "v1"):
                    registry.promote("ranker", version)
                    wait_until(lambda: state(client)["models"] == {"ltr": f"ranker@{version}"})  # noqa: B023
                    time.sleep(0.05)
        finally:
            stop.set()
        statuses = [status for one in loads for status in one.result()]
        assert client.get("/ready").status_code == 200
    impressions = logged(folder)
    assert set(statuses) == {200}
    assert len(impressions) == len(statuses) > 50
    assert {model_of(impression) for impression in impressions} == {"ranker@v1", "ranker@v2"}
    assert len({impression.model_version for impression in impressions}) == 2
    for impression in impressions:
        assert impression.document_ids == ORDERS[model_of(impression)]


def test_the_log_has_the_features_the_model_saw(folder: Path, registry: ModelRegistry) -> None:
    feature_set = load_feature_set("default")
    with service(folder) as client:
        served = {reply["impression_id"]: reply for reply in (search(client) for _ in range(3))}
        registry.promote("ranker", "v2")
        wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v2"})
        served |= {reply["impression_id"]: reply for reply in (search(client) for _ in range(3))}
    for impression in logged(folder):
        assert impression.feature_set == feature_set.id
        assert list(impression.features) == list(impression.document_ids)
        assert impression.features["d0"]["dense_score"] is None
        # What training would compute from the log is, bit by bit, what the reply was made of.
        model = load_numeric_ranker(registry.root / model_of(impression).replace("@", "/"))
        rows = np.stack([feature_set.from_log(impression.features[i]) for i in impression.document_ids])
        scores = model.score(rows[:, [feature_set.names.index(name) for name in model.feature_names]])
        shown = [result["stages"]["ltr"]["score"] for result in served[impression.id]["results"]]
        retrieved = [DOCUMENTS.index(next(d for d in DOCUMENTS if d.id == i)) for i in impression.document_ids]
        in_order_seen = np.empty(len(scores))
        in_order_seen[retrieved] = scores
        assert shown == (scores - in_order_seen.mean()).tolist()


def test_a_reranking_logs_the_features_and_the_version_too(folder: Path, registry: ModelRegistry) -> None:
    documents = [
        {"id": document.id, "text": document.text, "metadata": dict(document.metadata)} for document in DOCUMENTS
    ]
    with service(folder) as client:
        body = {"query": "cat", "documents": documents, "model": "learned", "top_n": 5, "log": True}
        reply = client.post("/v1/rerank", json=body).json()
    (impression,) = logged(folder)
    assert impression.id == reply["impression_id"]
    assert model_of(impression) == "ranker@v1"
    assert impression.document_ids == ORDERS["ranker@v1"][:5]
    assert impression.feature_set == "default@1"
    assert list(impression.features) == list(impression.document_ids)
    assert impression.features["d11"]["incoming_rank"] == 12


def test_the_first_model_is_rolled_back_under_load_without_a_failed_request(folder: Path) -> None:
    registry = ModelRegistry(folder / "models")
    add_linear(registry, "v1", NEWEST_FIRST)
    stop = threading.Event()

    with service(folder) as client, ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(search_until, stop, client) for _ in range(2)]
        try:
            for _ in range(3):
                wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v1"})
                assert registry.rollback("ranker") is None
                wait_until(lambda: state(client)["models"] == {})
                time.sleep(0.05)
                assert state(client)["reason"] is None
                registry.promote("ranker", "v1")
            assert registry.rollback("ranker") is None
            wait_until(lambda: state(client)["models"] == {})
        finally:
            stop.set()
        statuses = [status for one in loads for status in one.result()]
        assert client.get("/ready").status_code == 200
        assert search(client)["meta"]["warnings"] == [
            "no version of model 'ranker' is live, so stage 'ltr' kept the order that came in"
        ]
    assert set(statuses) == {200}
    impressions = logged(folder)
    assert {model_of(impression) for impression in impressions} == {"ranker@v1", ""}
    for impression in impressions:
        assert impression.document_ids == ORDERS[model_of(impression)]
        assert impression.feature_set == "default@1"


def test_a_service_can_start_without_a_model_and_gets_the_first_one(folder: Path) -> None:
    with service(folder) as client:
        reply = search(client)
        assert reply["meta"]["warnings"] == [
            "no version of model 'ranker' is live, so stage 'ltr' kept the order that came in"
        ]
        assert state(client)["models"] == {}
        add_linear(ModelRegistry(folder / "models"), "v1", NEWEST_FIRST)
        wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v1"})
        assert search(client)["meta"]["warnings"] == []
    cold, warm = logged(folder)
    assert (model_of(cold), model_of(warm)) == ("", "ranker@v1")
    assert cold.document_ids == ORDERS[""]
    assert warm.document_ids == ORDERS["ranker@v1"]
    assert cold.feature_set == warm.feature_set == "default@1"
    assert cold.features["d3"]["bm25"] == warm.features["d3"]["bm25"]


def break_weights(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"\x00" * 64)


@pytest.mark.parametrize(
    ("weights", "feature_set", "harm", "reason"),
    [
        (OLDEST_FIRST, "default@1", break_weights, "holds no ranking network"),
        (OLDEST_FIRST, "default@1", lambda folder: (folder / "ranker.json").write_text("{"), "is not JSON"),
        (OLDEST_FIRST, "default@1", lambda folder: (folder / "ranker.json").unlink(), "no ranker.json"),
        (OLDEST_FIRST, "default@0", None, "trained on feature set 'default@0'"),
        ({"price": 1.0}, "default@1", None, "the model was trained with price"),
        ({"coverage": float("inf")}, "default@1", None, "not finite"),  # loads, and fails the golden documents
    ],
)
def test_a_version_that_cannot_serve_leaves_the_old_one_serving(
    folder: Path,
    registry: ModelRegistry,
    caplog: pytest.LogCaptureFixture,
    weights: dict[str, float],
    feature_set: str,
    harm: Callable[[Path], object] | None,
    reason: str,
) -> None:
    path = add_linear(registry, "v3", weights, promote=False, feature_set=feature_set)
    if harm is not None:
        harm(path)
    with service(folder) as client:
        registry.promote("ranker", "v3")
        wait_until(lambda: state(client)["reason"] is not None)
        rejected = state(client)
        assert rejected["models"] == {"ltr": "ranker@v1"}
        assert rejected["reason"].startswith("ltr:ranker@v3 was not taken over: ")
        assert reason in rejected["reason"]
        assert client.get("/ready").status_code == 200
        assert [result["document"]["id"] for result in search(client)["results"]] == list(ORDERS["ranker@v1"])
        # An index built meanwhile is served all the same.
        directory = IndexDirectory(folder / "index")
        directory.corpus.append([Document("new", "cat and nothing else")])
        directory.build(encoder=None, encoder_name=None)
        wait_until(lambda: len(search(client, top_k=20)["results"]) == 13)
        assert state(client)["reason"] == rejected["reason"]
        errors = [record.message for record in caplog.records if "ranker@v3" in record.message]
        assert len(errors) == 1
        assert "ltr:ranker@v1 goes on serving" in errors[0]

        registry.rollback("ranker")
        wait_until(lambda: state(client)["reason"] is None)
        assert state(client)["models"] == {"ltr": "ranker@v1"}
    assert {model_of(impression) for impression in logged(folder)} == {"ranker@v1"}


def test_a_version_waits_for_a_calibration_of_its_own(folder: Path, registry: ModelRegistry) -> None:
    text = CONFIG.replace("model: ranker}", "model: ranker, calibration: true}")
    (folder / "shortlist.yaml").write_text(text)

    def calibrate(version: str) -> None:
        kind, model = ScoreKind.PREFERENCE, f"ranker@{version}"
        fitted = fit_calibration([-1.0, 0.0, 1.0], [0, 0, 1], score_kind=kind, data="made up", model=model)
        fitted.save(registry.root / "ranker" / version / CALIBRATION_FILE)

    calibrate("v1")
    with service(folder) as client:
        assert search(client)["meta"]["score_kind"] == "probability"
        registry.promote("ranker", "v2")
        wait_until(lambda: state(client)["reason"] is not None)
        assert "ltr:ranker@v2 was not taken over: no calibration at" in state(client)["reason"]
        assert state(client)["models"] == {"ltr": "ranker@v1"}
        assert search(client)["meta"]["score_kind"] == "probability"
        calibrate("v2")
        wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v2"})
        assert state(client)["reason"] is None
        assert search(client)["meta"]["score_kind"] == "probability"


def test_the_version_before_is_let_go(folder: Path, registry: ModelRegistry) -> None:
    pipelines = load_pipelines(folder / "shortlist.yaml")
    with running(pipelines, folder, refresh_interval_s=0.05) as client:
        old = weakref.ref(pipelines.open("learned").stages[0].ranker)
        registry.promote("ranker", "v2")
        wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v2"})
        wait_until(lambda: gc.collect() >= 0 and old() is None)
        search(client)
    pipelines.close()


def test_a_pointer_to_nowhere_leaves_the_old_version_serving(folder: Path, registry: ModelRegistry) -> None:
    with service(folder) as client:
        pointer = registry.root / "ranker" / "LIVE"
        (folder / "LIVE").write_text("v9\n")
        (folder / "LIVE").replace(pointer)  # at once, as the registry writes it: while it is empty nothing is live
        wait_until(lambda: "no version 'v9'" in str(state(client)["reason"]))
        assert state(client)["models"] == {"ltr": "ranker@v1"}
        search(client)
        # Put right without moving the pointer again.
        (registry.root / "ranker" / "v2").rename(registry.root / "ranker" / "v9")
        card = registry.root / "ranker" / "v9" / "model_card.json"
        card.write_text(card.read_text().replace('"v2"', '"v9"'))
        wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v9"})
        assert state(client)["reason"] is None


def test_what_nobody_foresaw_does_not_end_the_refreshing(tmp_path: Path) -> None:
    class Source(FakePipelines):
        version = "v1"

        def models(self, name: str) -> Mapping[str, str]:
            return {"words": f"words@{self.version}"}

        def open(self, *_: object, **__: object) -> Pipeline:
            if self.version == "v2":
                raise ZeroDivisionError("a bug")
            return Pipeline("words", None, (Stage("words", WordRanker(), 9, model=f"words@{self.version}"),))

    source = Source({"words": pipeline_of}, only_rerank=["words"])
    with running(source, tmp_path, refresh_interval_s=0.02) as client:
        source.version = "v2"
        wait_until(lambda: state(client, "words")["reason"] == "words:words@v2 was not taken over: a bug")
        assert state(client, "words")["models"] == {"words": "words@v1"}
        source.version = "v3"
        wait_until(lambda: state(client, "words")["models"] == {"words": "words@v3"})
        assert state(client, "words")["reason"] is None


def test_one_command_promotes_and_one_rolls_back(folder: Path, registry: ModelRegistry) -> None:
    def models(*arguments: str) -> str:
        done = CliRunner().invoke(build_cli(), ["models", *arguments, "--config", str(folder / "shortlist.yaml")])
        assert done.exit_code == 0, done.output
        return done.output

    measured = ModelCard(
        "ranker", "v4", "ltr", "here", "Apache-2.0", "sha256:0", parent="v1", measures={"nDCG@10": 0.5}
    )
    with service(folder) as client:
        assert "ranker@v2 is live, before it was v1" in models("promote", "ranker", "v2", "--why", "nDCG@10 +0.02")
        wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v2"})
        assert "ranker@v1 is live again" in models("rollback", "ranker", "--why", "fewer clicks")
        wait_until(lambda: state(client)["models"] == {"ltr": "ranker@v1"})
        said = " ".join(models("rollback", "ranker", "--why", "none at all").split())
        assert "ranker@v1 is out of service and nothing is live: stages keep the order that comes in" in said
        wait_until(lambda: state(client)["models"] == {})
        assert [result["document"]["id"] for result in search(client)["results"]] == list(ORDERS[""])
    assert [(move.action, move.why) for move in registry.history("ranker")] == [
        ("promote", "added"),
        ("promote", "nDCG@10 +0.02"),
        ("rollback", "fewer clicks"),
        ("rollback", "none at all"),
    ]
    models("promote", "ranker", "v1")
    assert '"feature_set": "default@1"' in models("show", "ranker")
    assert '"live": false' in models("show", "ranker", "v2")
    registry.add(measured, lambda folder: None, promote=False)
    compared = models("compare", "ranker", "v1", "v4")
    assert "nDCG@10" in compared
    assert "0.5000" in compared
    assert "●" in models("list")


def test_two_pipelines_are_interleaved_live(folder: Path, registry: ModelRegistry) -> None:
    with service(folder) as client:
        wait_until(lambda: state(client, "both")["search"])
        replies = [search(client, pipeline="both", top_k=4) for _ in range(12)]
        registry.promote("ranker", "v2")
        wait_until(lambda: state(client, "both")["models"] == {"learned/ltr": "ranker@v2"})
        reranked = client.post("/v1/rerank", json={"query": "cat", "documents": ["a", "b"], "model": "both"})
        assert reranked.status_code == 422
        assert "cannot rerank" in reranked.json()["message"]
        clicked = replies[0]["results"][0]["document"]["id"]
        event = {"impression_id": replies[0]["impression_id"], "document_id": clicked}
        assert client.post("/v1/events", json={"events": [event]}).json()["added"] == 1
    impressions = {impression.id: impression for impression in logged(folder)}
    first_arms = set()
    for reply in replies:
        impression = impressions[reply["impression_id"]]
        assert impression.pipeline == "both"
        assert impression.model_version.startswith("both@")
        assert impression.model_version.endswith("/learned/ltr:ranker@v1")
        # The arms disagree from the first place on, so every place is somebody's choice, two for each.
        assert sorted(impression.arms) == ["learned", "learned", "words", "words"]
        best = {"words": list(ORDERS[""]), "learned": list(ORDERS["ranker@v1"])}
        for document_id, arm in zip(impression.document_ids, impression.arms, strict=True):
            assert document_id == best[arm].pop(0)
        assert impression.feature_set == "default@1"
        assert set(impression.features) == set(impression.document_ids)
        assert list(reply["results"][0]["stages"])[-1] == "interleave"
        first_arms.add(impression.arms[0])
    assert first_arms == {"words", "learned"}


def test_an_arm_that_did_not_find_a_document_has_no_place_for_it(folder: Path, registry: ModelRegistry) -> None:
    """Two arms that retrieve differently: a pipeline of one candidate, and one of all."""
    config = CONFIG.replace("both: {interleave: [words, learned]}", "both: {interleave: [dense-like, learned]}")
    config += "  dense-like: {retriever: {kind: bm25}, stages: [{kind: ltr, model: ranker, depth: 3}]}\n"
    (folder / "shortlist.yaml").write_text(config)
    with service(folder) as client:
        wait_until(lambda: state(client, "both")["search"])
        reply = search(client, pipeline="both", top_k=2)
    (impression,) = logged(folder)
    assert impression.document_ids == tuple(result["document"]["id"] for result in reply["results"])
    for result, arm in zip(reply["results"], impression.arms, strict=True):
        if arm == "learned" and result["document"]["id"] not in {"d0", "d1", "d2"}:
            assert "dense-like/ltr" not in result["stages"]
        assert "learned/ltr" in result["stages"]

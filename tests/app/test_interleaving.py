"""Two arms through the engine: the same list as without it, and one arm alone where the other fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.engine import Engine
from index.clicklog.interchange import export_log
from index.clicklog.store import open_click_log
from rankers.errors import DeadlineError, InvalidInputError, WorkerError
from rankers.pipeline import Pipeline, Stage
from rankers.types import Document, Query, Ranking
from tests.app.conftest import Serve
from tests.app.fakes import FakePipelines, Gate, WordRanker, WordRetriever, poisonous, ranking_of, slow
from training.clicks.reader import log_files
from training.interleaving import read_interleaving

DOCUMENTS = [Document("a", "red green"), Document("b", "red green blue"), Document("c", "blue"), Document("d", "red")]
QUERY = Query("q", "red green blue")


def no_disk() -> None:
    """Fail as a retriever does."""
    raise RuntimeError("no disk")


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(timeout_s=10)
    yield engine
    engine.close()


def interleaved(first: WordRanker, second: WordRanker, retriever: WordRetriever | None = None) -> Pipeline:
    arms = [
        Pipeline(name, retriever, (Stage("words", ranker, 10),)) for name, ranker in (("one", first), ("two", second))
    ]
    return Pipeline("both", arms=(arms[0], arms[1]))


def test_search_equals_the_pipeline_run_directly(engine: Engine) -> None:
    pipeline = interleaved(WordRanker(), WordRanker(), WordRetriever(DOCUMENTS[::-1]))
    result = asyncio.run(engine.search(pipeline, QUERY, 3))
    (expected,) = pipeline.run([QUERY], 3)
    assert (result.ranking, result.arms) == (expected.ranking, expected.arms)
    assert [(stage.name, stage.ranking) for stage in result.stages] == [
        (stage.name, stage.ranking) for stage in expected.stages
    ]
    assert result.tokens == 2 * sum(len(document.text.split()) for document in DOCUMENTS)
    assert (result.feature_set, result.features) == ("", {})


def test_where_a_stage_of_one_arm_fails_the_other_arm_is_shown_alone(engine: Engine) -> None:
    pipeline = interleaved(WordRanker(before=poisonous), WordRanker(before=slow(0.01)))
    result = asyncio.run(engine.rerank(pipeline, ranking_of("red", "poison", "red")))
    assert [stage.name for stage in result.stages] == ["two/words"]
    assert result.ranking.ids == ("1", "0")
    assert (result.arms, result.degraded_reason, result.partial) == ((), None, False)
    (warning,) = result.warnings
    assert warning.startswith("'one' failed, so 'two' is shown alone and clicks credit neither: stage 'words' failed")


def test_where_a_stage_of_both_arms_fails_nothing_is_credited(engine: Engine) -> None:
    pipeline = interleaved(WordRanker(before=poisonous), WordRanker(before=poisonous))
    result = asyncio.run(engine.rerank(pipeline, ranking_of("red", "poison", "red")))
    assert (result.ranking.ids, result.arms, result.stages) == (("0", "1"), (), ())
    assert result.degraded_reason is not None
    assert len(result.warnings) == 1


@pytest.mark.parametrize("failing", [0, 1])
def test_where_retrieval_of_one_arm_fails_the_other_arm_is_shown_alone(engine: Engine, failing: int) -> None:
    retrievers = [WordRetriever(DOCUMENTS), WordRetriever(DOCUMENTS)]
    retrievers[failing] = WordRetriever(DOCUMENTS, before=no_disk)
    arms = (Pipeline("one", retrievers[0]), Pipeline("two", retrievers[1]))
    result = asyncio.run(engine.search(Pipeline("both", arms=arms), QUERY, 3))
    (alone,) = arms[1 - failing].run([QUERY], 3)
    assert (result.ranking, result.arms) == (alone.ranking, ())
    assert [stage.name for stage in result.stages] == [f"{arms[1 - failing].name}/retrieve"]
    assert len(result.warnings) == 1


def test_where_both_arms_fail_the_search_does(engine: Engine) -> None:
    failing = WordRetriever(DOCUMENTS, before=no_disk)
    arms = (Pipeline("one", failing), Pipeline("two", failing))
    with pytest.raises(WorkerError):
        asyncio.run(engine.search(Pipeline("both", arms=arms), QUERY, 3))
    assert not any(engine.queue_tokens.values())


def test_a_search_that_one_arm_must_refuse_is_refused(engine: Engine) -> None:
    arms = (Pipeline("one", WordRetriever(DOCUMENTS)), Pipeline("two", stages=(Stage("words", WordRanker(), 10),)))
    with pytest.raises(InvalidInputError):
        asyncio.run(engine.search(Pipeline("both", arms=arms), QUERY, 3))
    assert not any(engine.queue_tokens.values())


def test_an_arm_that_runs_out_of_time_is_not_shown(engine: Engine) -> None:
    pipeline = interleaved(WordRanker(), WordRanker(before=slow(0.5)))
    result = asyncio.run(engine.rerank(pipeline, ranking_of("red", "x", "red"), deadline_s=0.2))
    assert [stage.name for stage in result.stages] == ["one/words"]
    assert (result.ranking.ids, result.arms, result.partial) == (("1", "0"), (), False)
    assert "its time was up" in result.warnings[0]


def test_over_http_the_list_of_one_arm_is_logged_without_arms(serve: Serve, tmp_path: Path) -> None:
    """The words of the query choose what fails: nothing, the retrieval or the stage of the second arm."""

    def poisoned(rankings: Sequence[Ranking]) -> None:
        if any("poison" in ranking.query.text for ranking in rankings):
            raise RuntimeError("poisoned")

    class Retriever(WordRetriever):
        def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
            if any("lost" in query.text for query in queries):
                raise RuntimeError("no disk")
            return super().retrieve(queries, k)

    pipelines = FakePipelines(
        {
            "one": lambda: Pipeline("one", WordRetriever(DOCUMENTS), (Stage("words", WordRanker(), 10),)),
            "two": lambda: Pipeline(
                "two", Retriever(DOCUMENTS[::-1]), (Stage("words", WordRanker(before=poisoned), 10),)
            ),
        },
        interleave={"both": ("one", "two")},
    )
    client = serve(pipelines)
    shown = {}
    for query in ("red green blue", "red green blue poison", "red green blue lost"):
        reply = client.post("/v1/search", json={"query": query, "pipeline": "both", "top_k": 3})
        assert reply.status_code == 200, reply.text
        shown[query] = reply.json()
        clicked = shown[query]["results"][1]["document"]["id"]
        event = {"impression_id": shown[query]["impression_id"], "document_id": clicked}
        assert client.post("/v1/events", json={"events": [event]}).json()["added"] == 1
    assert 'reason="arm"} 2.0' in client.get("/metrics").text
    alone = client.post("/v1/search", json={"query": "red green blue", "pipeline": "one", "top_k": 3}).json()
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    try:
        logged = {impression.id: impression for _, impression in log.impressions()}
        moved = export_log(log, tmp_path / "export")
    finally:
        log.close()
    assert shown["red green blue"]["meta"]["warnings"] == []
    assert any(logged[shown["red green blue"]["impression_id"]].arms)
    for query, reason in (("red green blue poison", "stage 'words' failed"), ("red green blue lost", "retrieval")):
        (warning,) = shown[query]["meta"]["warnings"]
        assert "'two' failed, so 'one' is shown alone" in warning
        assert reason in warning
        impression = logged[shown[query]["impression_id"]]
        assert impression.arms == ()
        assert impression.document_ids == tuple(result["document"]["id"] for result in alone["results"])
        assert impression.model_version.endswith("/one/words")
    assert moved.events == 3
    verdict = read_interleaving(*log_files(tmp_path / "export"), names=("one", "two"))
    assert verdict.wins + verdict.losses + verdict.ties == 1


def test_when_one_arm_is_out_of_time_the_work_of_the_other_is_given_up() -> None:
    gate = Gate()
    engine = Engine(timeout_s=0.2)
    try:
        ranker = WordRanker(before=gate)
        with pytest.raises(DeadlineError):
            asyncio.run(engine.rerank(interleaved(ranker, WordRanker()), ranking_of("red", "x", "red")))
        gate.open.set()
    finally:
        engine.close()
    assert engine.queue_tokens["ranking"] == 0

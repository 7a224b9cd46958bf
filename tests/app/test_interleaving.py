"""Two arms through the engine: the same list as without it, and one outcome for both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from app.engine import Engine
from rankers.errors import DeadlineError, WorkerError
from rankers.pipeline import Pipeline, Stage
from rankers.types import Document, Query
from tests.app.fakes import Gate, WordRanker, WordRetriever, poisonous, ranking_of, slow

DOCUMENTS = [Document("a", "red green"), Document("b", "red green blue"), Document("c", "blue"), Document("d", "red")]
QUERY = Query("q", "red green blue")


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


def test_a_stage_that_fails_in_one_arm_is_left_out_there(engine: Engine) -> None:
    pipeline = interleaved(WordRanker(), WordRanker(before=poisonous))
    result = asyncio.run(engine.rerank(pipeline, ranking_of("red", "poison", "red")))
    assert [stage.name for stage in result.stages] == ["one/words", "interleave"]
    assert sorted(result.ranking.ids) == ["0", "1"]
    assert result.degraded_reason is not None
    assert "stage 'words' failed" in result.degraded_reason


def test_a_retrieval_that_fails_in_one_arm_fails_the_search(engine: Engine) -> None:
    def fail() -> None:
        raise RuntimeError("no disk")

    arms = (Pipeline("one", WordRetriever(DOCUMENTS)), Pipeline("two", WordRetriever(DOCUMENTS, before=fail)))
    with pytest.raises(WorkerError):
        asyncio.run(engine.search(Pipeline("both", arms=arms), QUERY, 3))
    assert engine.queue_tokens == {"retrieval": 0, "ranking": 0}


def test_a_deadline_is_the_same_for_both_arms(engine: Engine) -> None:
    pipeline = interleaved(WordRanker(), WordRanker(before=slow(0.5)))
    result = asyncio.run(engine.rerank(pipeline, ranking_of("red", "x", "red"), deadline_s=0.2))
    assert result.partial
    assert "two/words" not in [stage.name for stage in result.stages]


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

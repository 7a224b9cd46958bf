"""Pipelines for many clients: batching, deadlines, cancellation, failing stages."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.engine import Engine, EngineResult
from rankers.errors import DeadlineError, InvalidInputError, NotReadyError, OverloadedError, TooLargeError, WorkerError
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.scheduler import Scheduler
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.windows import WindowOutcome
from rankers.ltr.features import load_feature_set
from rankers.ltr.ranker import LtrRanker
from rankers.pipeline import Pipeline, Stage
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.app.fakes import Gate, WordRanker, WordRetriever, pipeline_of, poisonous, ranking_of, slow
from tests.rankers.listwise.oracle import OracleModel
from tests.rankers.ltr.linear import linear_model

DOCUMENTS = [Document("a", "red green"), Document("b", "red green blue"), Document("c", "blue"), Document("d", "grey")]
QUERY = Query("q", "red green blue")


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(timeout_s=10)
    yield engine
    engine.close()


def unit_vectors(
    query: Query, documents: Sequence[Document]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Encode every text alike."""
    return np.ones(1, dtype=np.float32), np.ones((len(documents), 1), dtype=np.float32)


def rerank(engine: Engine, pipeline: Pipeline, *texts: str, deadline_s: float | None = None) -> EngineResult:
    return asyncio.run(engine.rerank(pipeline, ranking_of("red green blue", *texts), deadline_s=deadline_s))


def test_search_equals_the_pipeline_run_directly(engine: Engine) -> None:
    pipeline = pipeline_of(WordRanker(), documents=DOCUMENTS, depth=2)
    result = asyncio.run(engine.search(pipeline, QUERY, 2))
    (expected,) = pipeline.run([QUERY], 2)
    assert result.ranking == expected.ranking
    assert [(stage.name, stage.ranking) for stage in result.stages] == [
        (stage.name, stage.ranking) for stage in expected.stages
    ]
    assert (result.partial, result.degraded_reason) == (False, None)
    assert result.inference_s == sum(stage.seconds for stage in result.stages)


def test_rerank_equals_the_pipeline_run_directly(engine: Engine) -> None:
    pipeline = pipeline_of(WordRanker())
    result = rerank(engine, pipeline, "x", "red", "red green")
    (expected,) = pipeline.rerank([ranking_of("red green blue", "x", "red", "red green")])
    assert result.ranking == expected.ranking
    assert result.ranking.ids == ("2", "1", "0")
    assert result.tokens == 4
    assert result.readings["2"].tokens_used == 2


def test_requests_that_come_together_share_batches(engine: Engine) -> None:
    gate = Gate()
    ranker = WordRanker(before=gate)
    pipeline = pipeline_of(ranker)

    async def many() -> list[EngineResult]:
        first = asyncio.create_task(engine.rerank(pipeline, ranking_of("red", "x", "red")))
        await asyncio.to_thread(gate.entered.wait, 10)
        rest = [asyncio.create_task(engine.rerank(pipeline, ranking_of("red", "x", "red"))) for _ in range(7)]
        while engine.queue_tokens["ranking"] < 16:
            await asyncio.sleep(0.001)
        gate.open.set()
        return await asyncio.gather(first, *rest)

    results = asyncio.run(many())
    assert ranker.batches == [1, 7]
    assert all(result.ranking.ids == ("1", "0") for result in results)
    assert not any(engine.queue_tokens.values())


def test_a_learned_ranker_of_numbers_waits_for_no_other_and_one_that_encodes_texts_does(engine: Engine) -> None:
    gate = Gate()
    slow_pipeline = pipeline_of(WordRanker(before=gate), name="slow")
    features, model = load_feature_set("default"), linear_model({"coverage": 1.0})
    numbers = Pipeline("numbers", stages=(Stage("ltr", LtrRanker(model, features), 10),))
    encoding = Pipeline("encoding", stages=(Stage("ltr", LtrRanker(model, features, encode=unit_vectors), 10),))

    async def meet() -> tuple[EngineResult, EngineResult]:
        behind = asyncio.create_task(engine.rerank(slow_pipeline, ranking_of("red", "x", "red")))
        await asyncio.to_thread(gate.entered.wait, 10)
        quick = await engine.rerank(numbers, ranking_of("red", "x", "red"))
        patient = asyncio.create_task(engine.rerank(encoding, ranking_of("red", "x", "red")))
        await asyncio.sleep(0.05)
        assert not behind.done()
        assert not patient.done()
        gate.open.set()
        await behind
        return quick, await patient

    quick, patient = asyncio.run(meet())
    assert quick.ranking.ids == patient.ranking.ids == ("1", "0")
    assert not any(engine.queue_tokens.values())


def test_searches_of_different_depth_are_not_mixed(engine: Engine) -> None:
    retriever = WordRetriever(DOCUMENTS)

    async def both() -> list[EngineResult]:
        return await asyncio.gather(*(engine.search(Pipeline("p", retriever), QUERY, k) for k in (1, 2, 1)))

    results = asyncio.run(both())
    assert [len(result.ranking) for result in results] == [1, 2, 1]
    assert {k for _, k in retriever.calls} == {1, 2}
    assert sum(count for count, _ in retriever.calls) == 3


def test_two_rankers_never_run_at_the_same_time(engine: Engine) -> None:
    busy = threading.Lock()

    def exclusive(_: Sequence[Ranking]) -> None:
        assert busy.acquire(blocking=False), "two rankers ran at once"
        time.sleep(0.02)
        busy.release()

    pipelines = [pipeline_of(WordRanker(before=exclusive), name=name) for name in "abc"]

    async def all_at_once() -> list[EngineResult]:
        return await asyncio.gather(*(engine.rerank(pipeline, ranking_of("x", "x", "y")) for pipeline in pipelines))

    assert all(result.degraded_reason is None for result in asyncio.run(all_at_once()))


def test_a_listwise_request_joins_the_windows_of_those_under_way(engine: Engine) -> None:
    first_window, second_waits = threading.Event(), threading.Event()
    batches: list[int] = []

    class Watched(FirstTokenReader):
        def read(self, prompts: Any, windows: Any, *, labels: Any) -> list[WindowOutcome]:
            batches.append(len(prompts))
            first_window.set()
            assert second_waits.wait(10)
            return super().read(prompts, windows, labels=labels)

    scheduler, reader = Scheduler(), Watched(OracleModel())
    slow, fast = (
        pipeline_of(ListwiseRanker(OracleModel(), reader=reader, strategy=strategy, scheduler=scheduler))
        for strategy in (Sliding(size=4, stride=2), Sliding(size=3, stride=1))
    )
    texts = [f"worth {worth}" for worth in range(8)]

    async def both() -> tuple[EngineResult, EngineResult]:
        one = asyncio.create_task(engine.rerank(slow, ranking_of("red", *texts)))
        await asyncio.to_thread(first_window.wait, 10)
        other = asyncio.create_task(engine.rerank(fast, ranking_of("red", *texts[:3])))
        while not scheduler.waiting_windows:
            await asyncio.sleep(0.001)
        second_waits.set()
        return await asyncio.gather(one, other)

    one, other = asyncio.run(both())
    assert batches == [1, 2, 1]
    assert one.ranking.ids[0] == "7"
    assert other.ranking.ids == ("2", "1", "0")


def test_a_failing_stage_keeps_the_order_and_says_so(engine: Engine) -> None:
    result = rerank(engine, pipeline_of(WordRanker(before=poisonous)), "x", "red poison", "red green")
    assert result.ranking.ids == ("0", "1", "2")
    assert result.degraded_reason is not None
    assert "'words'" in result.degraded_reason
    assert "RuntimeError" in result.degraded_reason
    assert result.stages == ()


def test_stages_after_a_failing_one_still_run(engine: Engine) -> None:
    stages = (Stage("large", WordRanker(before=poisonous), 10), Stage("small", WordRanker(), 10))
    result = rerank(engine, Pipeline("chain", None, stages), "poison", "red")
    assert result.ranking.ids == ("1", "0")
    assert [stage.name for stage in result.stages] == ["small"]
    assert result.degraded_reason is not None


def test_a_poisoned_request_does_not_harm_others_in_its_batch(engine: Engine) -> None:
    pipeline = pipeline_of(WordRanker(before=poisonous))

    async def both() -> list[EngineResult]:
        texts = [("poison", "red"), ("x", "red")]
        return await asyncio.gather(*(engine.rerank(pipeline, ranking_of("red", *each)) for each in texts))

    bad, good = asyncio.run(both())
    assert bad.degraded_reason
    assert good.degraded_reason is None
    assert good.ranking.ids == ("1", "0")


def test_a_ranker_that_loses_a_document_is_a_failing_stage(engine: Engine) -> None:
    class Losing(WordRanker):
        def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
            return [ranking.top(1) for ranking in super().rank(rankings)]

    result = rerank(engine, pipeline_of(Losing()), "x", "red")
    assert result.ranking.ids == ("0", "1")
    assert "other documents" in str(result.degraded_reason)


def test_an_error_about_the_input_is_not_a_failing_stage(engine: Engine) -> None:
    def refuse(_: Sequence[Ranking]) -> None:
        raise TooLargeError("query is too long", field="query")

    with pytest.raises(TooLargeError):
        rerank(engine, pipeline_of(WordRanker(before=refuse)), "x", "y")


def test_failed_retrieval_is_an_error(engine: Engine) -> None:
    def fail() -> None:
        raise OSError("disk")

    pipeline = Pipeline("p", WordRetriever(DOCUMENTS, before=fail))
    with pytest.raises(WorkerError, match="OSError"):
        asyncio.run(engine.search(pipeline, QUERY, 3))


def test_a_deadline_gives_the_best_order_so_far(engine: Engine) -> None:
    gate = Gate()
    stages = (Stage("fast", WordRanker(), 10), Stage("never", WordRanker(before=gate), 10))
    started = time.monotonic()
    result = rerank(engine, Pipeline("chain", None, stages), "x", "red", "red green", deadline_s=0.5)
    assert time.monotonic() - started < 3
    gate.open.set()
    assert result.partial
    assert result.ranking.ids == ("2", "1", "0")
    assert [stage.name for stage in result.stages] == ["fast"]


def test_a_deadline_before_any_stage_gives_the_order_that_came_in(engine: Engine) -> None:
    gate = Gate()
    result = rerank(engine, pipeline_of(WordRanker(before=gate)), "x", "red", deadline_s=0.05)
    gate.open.set()
    assert result.partial
    assert result.ranking.ids == ("0", "1")
    assert result.ranking.score_kind is ScoreKind.RANK


def test_a_deadline_before_anything_was_found_is_an_error(engine: Engine) -> None:
    pipeline = Pipeline("p", WordRetriever(DOCUMENTS, before=lambda: time.sleep(0.3)))
    with pytest.raises(DeadlineError, match="50 ms"):
        asyncio.run(engine.search(pipeline, QUERY, 3, deadline_s=0.05))


def test_without_a_deadline_the_timeout_is_an_error() -> None:
    engine = Engine(timeout_s=0.05)
    with pytest.raises(DeadlineError, match="50 ms"):
        rerank(engine, pipeline_of(WordRanker(before=slow(0.3))), "x", "y")
    engine.close()


def test_requests_whose_client_or_time_is_gone_never_start(engine: Engine) -> None:
    gate = Gate()
    ranker = WordRanker(before=gate)
    pipeline = pipeline_of(ranker)

    async def scenario() -> None:
        first = asyncio.create_task(engine.rerank(pipeline, ranking_of("red", "x", "red")))
        await asyncio.to_thread(gate.entered.wait, 10)
        gone = asyncio.create_task(engine.rerank(pipeline, ranking_of("red", "x", "red")))
        late = await engine.rerank(pipeline, ranking_of("red", "x", "red"), deadline_s=0.05)
        assert late.partial
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert gone.cancelled()
        gate.open.set()
        await first

    asyncio.run(scenario())
    assert ranker.batches == [1]
    assert engine.queue_tokens["ranking"] == 0


def test_a_full_queue_refuses_before_work_is_wasted() -> None:
    engine = Engine(max_queue_tokens=4, timeout_s=10)
    gate = Gate()
    retriever = WordRetriever(DOCUMENTS)
    pipeline = Pipeline("p", retriever, (Stage("words", WordRanker(before=gate), 10),))

    async def scenario() -> None:
        first = asyncio.create_task(engine.rerank(pipeline, ranking_of("red", "a b", "c d")))
        await asyncio.to_thread(gate.entered.wait, 10)
        with pytest.raises(OverloadedError):
            await engine.rerank(pipeline, ranking_of("red", "x", "y"))
        with pytest.raises(OverloadedError):
            await engine.search(pipeline, QUERY, 2)
        gate.open.set()
        await first

    asyncio.run(scenario())
    assert retriever.calls == []
    engine.close()


def test_one_engine_serves_two_event_loops(engine: Engine) -> None:
    gate = Gate()
    ranker = WordRanker(before=gate)
    pipeline = pipeline_of(ranker)
    orders: list[tuple[str, ...]] = []

    def client() -> None:
        orders.append(rerank(engine, pipeline, "x", "red").ranking.ids)

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert orders == [("1", "0"), ("1", "0")]


def test_shutdown_leaves_nobody_waiting() -> None:
    engine = Engine(timeout_s=10)
    gate = Gate()
    pipeline = pipeline_of(WordRanker(before=gate))

    async def scenario() -> None:
        tasks = [asyncio.create_task(engine.rerank(pipeline, ranking_of("red", "x", "red"))) for _ in range(3)]
        await asyncio.to_thread(gate.entered.wait, 10)
        await asyncio.to_thread(engine.close, timeout_s=0.05)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, NotReadyError) for outcome in outcomes)

    asyncio.run(scenario())
    gate.open.set()


def test_what_a_pipeline_cannot_do_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidInputError, match="no retriever"):
        asyncio.run(engine.search(pipeline_of(WordRanker()), QUERY, 3))
    with pytest.raises(InvalidInputError, match="no stages"):
        rerank(engine, pipeline_of(documents=DOCUMENTS), "x")
    with pytest.raises(InvalidInputError, match="k is 0"):
        asyncio.run(engine.search(pipeline_of(documents=DOCUMENTS), QUERY, 0))


def test_nothing_found_is_an_empty_ranking(engine: Engine) -> None:
    result = asyncio.run(engine.search(pipeline_of(WordRanker(), documents=DOCUMENTS), Query("q", "zebra"), 3))
    assert len(result.ranking) == 0
    assert [stage.name for stage in result.stages] == ["retrieve"]

"""The queue: what runs together, what is refused, and that nothing is left hanging."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching import Batcher, BatchReport, Done
from rankers.errors import InvalidInputError, NotReadyError, OverloadedError, WorkerError

WAIT_S = 10


class Recorder:
    """Doubles numbers, remembers batches; the first batch can be held up."""

    def __init__(self, *, hold: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Event()
        self.go_on = threading.Event()
        if not hold:
            self.go_on.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        assert self.go_on.wait(WAIT_S)
        if any(item < 0 for item in items):
            raise ZeroDivisionError("negative")
        return [2 * item for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(hold=True)


@pytest.fixture
def batcher(recorder: Recorder) -> Iterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher("doubling", recorder, max_batch_tokens=10, max_queue_tokens=20)
    yield batcher
    recorder.go_on.set()
    batcher.close()


def result(future: "Future[Done[int]]") -> int:
    return future.result(WAIT_S).result


def hold_worker(batcher: Batcher[int, int], recorder: Recorder) -> "Future[Done[int]]":
    """Keep the thread busy, so that what is submitted next has to wait."""
    first = batcher.submit("busy", 0, cost_tokens=1)
    assert recorder.started.wait(WAIT_S)
    return first


def test_what_waits_runs_together_up_to_the_budget(batcher: Batcher[int, int], recorder: Recorder) -> None:
    hold_worker(batcher, recorder)
    futures = [batcher.submit("a", item, cost_tokens=4) for item in (1, 2, 3)]
    recorder.go_on.set()
    assert [result(future) for future in futures] == [2, 4, 6]
    assert recorder.batches == [[0], [1, 2], [3]]


def test_the_oldest_decides_and_only_its_like_join_it(batcher: Batcher[int, int], recorder: Recorder) -> None:
    hold_worker(batcher, recorder)
    futures = [batcher.submit(key, item, cost_tokens=1) for key, item in [("a", 1), ("b", 2), ("a", 3), ("b", 4)]]
    recorder.go_on.set()
    wait(futures, WAIT_S)
    assert recorder.batches == [[0], [1, 3], [2, 4]]


def test_what_joins_starts_while_its_like_is_running(recorder: Recorder) -> None:
    batcher: Batcher[int, int] = Batcher("doubling", recorder, max_batch_tokens=10, max_queue_tokens=20, max_threads=2)
    running = batcher.submit("a", 1, cost_tokens=1, joins="model")
    assert recorder.started.wait(WAIT_S)
    recorder.started.clear()
    joined = batcher.submit("b", 2, cost_tokens=1, joins="model")
    assert recorder.started.wait(WAIT_S)
    recorder.started.clear()
    full = batcher.submit("c", 3, cost_tokens=1, joins="model")
    assert not recorder.started.wait(0.1)
    recorder.go_on.set()
    assert [result(future) for future in (running, joined, full)] == [2, 4, 6]
    assert recorder.batches == [[1], [2], [3]]
    batcher.close()


@pytest.mark.parametrize("joins", [None, "other model"])
def test_what_does_not_join_waits_and_whoever_comes_later_waits_behind_it(
    recorder: Recorder, joins: str | None
) -> None:
    batcher: Batcher[int, int] = Batcher("doubling", recorder, max_batch_tokens=10, max_queue_tokens=20, max_threads=9)
    futures = [batcher.submit("a", 1, cost_tokens=1, joins="model")]
    assert recorder.started.wait(WAIT_S)
    recorder.started.clear()
    futures.append(batcher.submit("b", 2, cost_tokens=1, joins=joins))
    futures.append(batcher.submit("c", 3, cost_tokens=1, joins="model"))
    assert not recorder.started.wait(0.1)
    recorder.go_on.set()
    assert [result(future) for future in futures] == [2, 4, 6]
    assert recorder.batches == [[1], [2], [3]]
    batcher.close()


def test_closing_fails_every_running_batch(recorder: Recorder) -> None:
    batcher: Batcher[int, int] = Batcher("doubling", recorder, max_batch_tokens=10, max_queue_tokens=20, max_threads=2)
    futures = [batcher.submit(key, 1, cost_tokens=1, joins="model") for key in ("a", "b")]
    while len(recorder.batches) < 2:
        time.sleep(0.01)
    batcher.close(timeout_s=0.1)
    for future in futures:
        with pytest.raises(NotReadyError, match="shutting down"):
            future.result(WAIT_S)
    recorder.go_on.set()


def test_an_item_over_the_budget_runs_alone(batcher: Batcher[int, int], recorder: Recorder) -> None:
    hold_worker(batcher, recorder)
    futures = [batcher.submit("a", item, cost_tokens=cost) for item, cost in [(1, 15), (2, 1), (3, 1)]]
    recorder.go_on.set()
    wait(futures, WAIT_S)
    assert recorder.batches == [[0], [1], [2, 3]]


def test_a_lone_item_waits_no_longer_than_allowed() -> None:
    recorder = Recorder()
    batcher: Batcher[int, int] = Batcher(
        "doubling", recorder, max_batch_tokens=100, max_queue_tokens=100, max_wait_s=0.5
    )
    alone = batcher.submit("a", 1, cost_tokens=1).result(WAIT_S)
    assert 0.45 < alone.queue_s < 3
    # Two that fill the budget wait for nothing.
    futures = [batcher.submit("a", item, cost_tokens=50) for item in (1, 2)]
    assert max(future.result(WAIT_S).queue_s for future in futures) < 0.4
    batcher.close()


def test_companions_that_come_in_time_share_the_batch() -> None:
    recorder = Recorder()
    batcher: Batcher[int, int] = Batcher(
        "doubling", recorder, max_batch_tokens=100, max_queue_tokens=100, max_wait_s=0.3
    )
    futures = [batcher.submit("a", item, cost_tokens=1) for item in range(5)]
    assert [result(future) for future in futures] == [0, 2, 4, 6, 8]
    assert recorder.batches == [[0, 1, 2, 3, 4]]
    batcher.close()


def test_a_full_queue_refuses_and_says_when_to_come_back(batcher: Batcher[int, int], recorder: Recorder) -> None:
    hold_worker(batcher, recorder)
    batcher.submit("a", 1, cost_tokens=19)
    with pytest.raises(OverloadedError, match=r"holds 20 tokens.* needs 5, the limit is 20") as refused:
        batcher.submit("a", 2, cost_tokens=5)
    assert refused.value.retry_after_s >= 1
    with pytest.raises(OverloadedError):
        batcher.refuse_if_full()
    assert batcher.admitted_tokens == 20


def test_retry_after_follows_the_measured_drain_rate() -> None:
    def run(items: Sequence[int]) -> list[int]:
        time.sleep(0.2)
        return list(items)

    batcher: Batcher[int, int] = Batcher("sleeping", run, max_batch_tokens=10, max_queue_tokens=40)
    batcher.submit("a", 0, cost_tokens=2).result(WAIT_S)  # 10 tokens/s
    for item in range(4):
        batcher.submit("a", item, cost_tokens=10)
    with pytest.raises(OverloadedError) as refused:
        batcher.submit("a", 5, cost_tokens=30)
    assert refused.value.retry_after_s == pytest.approx(3.0, rel=0.3)
    batcher.close()


def test_an_item_over_the_queue_is_admitted_when_there_is_nothing_else() -> None:
    batcher: Batcher[int, int] = Batcher("doubling", Recorder(), max_batch_tokens=10, max_queue_tokens=20)
    assert result(batcher.submit("a", 1, cost_tokens=1000)) == 2
    assert batcher.admitted_tokens == 0
    batcher.close()


def test_a_cancelled_item_never_starts_and_makes_room(batcher: Batcher[int, int], recorder: Recorder) -> None:
    hold_worker(batcher, recorder)
    gone = batcher.submit("a", 1, cost_tokens=19)
    assert gone.cancel()
    assert batcher.admitted_tokens == 1
    follower = batcher.submit("a", 2, cost_tokens=19)
    recorder.go_on.set()
    assert result(follower) == 4
    assert recorder.batches == [[0], [2]]


def test_one_bad_item_does_not_fail_its_neighbours(batcher: Batcher[int, int], recorder: Recorder) -> None:
    hold_worker(batcher, recorder)
    good, bad, also_good = [batcher.submit("a", item, cost_tokens=1) for item in (1, -1, 3)]
    recorder.go_on.set()
    assert (result(good), result(also_good)) == (2, 6)
    with pytest.raises(WorkerError, match="doubling failed with ZeroDivisionError") as failed:
        bad.result(WAIT_S)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert recorder.batches == [[0], [1, -1, 3], [1], [-1], [3]]
    assert batcher.admitted_tokens == 0


def test_errors_raised_on_purpose_pass_unchanged() -> None:
    def refuse(items: Sequence[int]) -> list[int]:
        raise InvalidInputError("no", field="x")

    batcher: Batcher[int, int] = Batcher("refusing", refuse, max_batch_tokens=1, max_queue_tokens=10)
    with pytest.raises(InvalidInputError, match="no"):
        batcher.submit("a", 1, cost_tokens=1).result(WAIT_S)
    batcher.close()


def test_a_missing_result_is_an_error_for_everyone() -> None:
    batcher: Batcher[int, int] = Batcher("losing", lambda items: [], max_batch_tokens=1, max_queue_tokens=10)
    with pytest.raises(WorkerError, match="0 results for 1 items"):
        batcher.submit("a", 1, cost_tokens=1).result(WAIT_S)
    batcher.close()


def test_the_thread_outlives_whatever_is_raised() -> None:
    def exit_once(items: Sequence[int]) -> list[int]:
        if items == [0]:
            raise SystemExit
        return list(items)

    batcher: Batcher[int, int] = Batcher("exiting", exit_once, max_batch_tokens=1, max_queue_tokens=10)
    with pytest.raises(WorkerError, match="interrupted by SystemExit"):
        batcher.submit("a", 0, cost_tokens=1).result(WAIT_S)
    assert result(batcher.submit("a", 7, cost_tokens=1)) == 7
    batcher.close()


def test_closing_leaves_nobody_waiting(recorder: Recorder) -> None:
    batcher: Batcher[int, int] = Batcher("doubling", recorder, max_batch_tokens=1, max_queue_tokens=10)
    running = hold_worker(batcher, recorder)
    waiting = batcher.submit("a", 1, cost_tokens=1)
    batcher.close(timeout_s=0.05)
    for future in (running, waiting):
        with pytest.raises(NotReadyError, match="shutting down"):
            future.result(WAIT_S)
    with pytest.raises(NotReadyError):
        batcher.submit("a", 2, cost_tokens=1)
    recorder.go_on.set()  # the batch still finishes, and nobody minds


def test_closing_lets_the_running_batch_finish(recorder: Recorder) -> None:
    batcher: Batcher[int, int] = Batcher("doubling", recorder, max_batch_tokens=1, max_queue_tokens=10)
    running = hold_worker(batcher, recorder)
    threading.Timer(0.05, recorder.go_on.set).start()
    batcher.close()
    assert result(running) == 0


def test_batches_are_reported() -> None:
    reports: list[BatchReport] = []
    batcher: Batcher[int, int] = Batcher(
        "doubling", Recorder(), max_batch_tokens=1, max_queue_tokens=10, on_batch=reports.append
    )
    batcher.submit("a", 1, cost_tokens=3).result(WAIT_S)
    batcher.close()
    assert [(report.worker, report.items, report.tokens) for report in reports] == [("doubling", 1, 3)]
    assert reports[0].seconds >= 0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=12))
def test_everyone_gets_their_own_result_and_no_batch_breaks_the_rules(jobs: list[tuple[str, int]]) -> None:
    seen: list[list[tuple[str, int]]] = []

    def run(items: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        seen.append(list(items))
        return list(items)

    batcher: Batcher[tuple[str, int], tuple[str, int]] = Batcher(
        "echo", run, max_batch_tokens=10, max_queue_tokens=1000
    )
    futures = [batcher.submit(job[0], job, cost_tokens=job[1]) for job in jobs]
    assert [future.result(WAIT_S).result for future in futures] == jobs
    batcher.close()
    for batch in seen:
        assert len({key for key, _ in batch}) == 1
        assert len(batch) == 1 or sum(max(cost, 1) for _, cost in batch) <= 10

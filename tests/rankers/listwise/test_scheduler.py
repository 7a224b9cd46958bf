"""The scheduler: who shares a batch with whom, and what becomes of windows that cannot be read."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from rankers.errors import InvalidInputError, WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.scheduler import Scheduler
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.windows import Signal, Strategy, Window, WindowOutcome, unread
from rankers.protocols import TokenIds
from rankers.types import Document, Query, Ranking
from tests.rankers.listwise.oracle import OracleModel

WAIT_S = 30.0


def candidates(count: int, name: str = "q") -> Ranking:
    return Ranking.from_order(Query(name, name), [Document(f"{name}{i}", f"{name} worth {i}") for i in range(count)])


class Watched(FirstTokenReader):
    """Reads with the oracle; remembers the sizes of batches, and lets a test interfere before each."""

    def __init__(self, before: Callable[[list[str]], None] = lambda texts: None) -> None:
        super().__init__(OracleModel())
        self.batches: list[list[str]] = []
        self._before = before

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        texts = ["".join(map(chr, prompt)) for prompt in prompts]
        self.batches.append(texts)
        self._before(texts)
        return super().read(prompts, windows, labels=labels)


def ranker(reader: FirstTokenReader, strategy: Strategy, scheduler: Scheduler | None = None) -> ListwiseRanker:
    return ListwiseRanker(OracleModel(), reader=reader, strategy=strategy, scheduler=scheduler)


def test_callers_with_different_strategies_share_batches() -> None:
    first_is_read, second_waits = threading.Event(), threading.Event()

    def hold_the_first(texts: list[str]) -> None:
        first_is_read.set()
        assert second_waits.wait(WAIT_S)

    scheduler, reader = Scheduler(), Watched(hold_the_first)
    slow = ranker(reader, Sliding(size=4, stride=2), scheduler)
    fast = ranker(reader, Sliding(size=3, stride=1), scheduler)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(slow.rank, [candidates(8, "slow")])
        assert first_is_read.wait(WAIT_S)
        other = threads.submit(fast.rank, [candidates(3, "fast")])
        while not scheduler.waiting_windows:  # the second caller has queued its window
            threading.Event().wait(0.001)
        second_waits.set()
        assert one.result(WAIT_S)[0].ids[0] == "slow7"
        assert other.result(WAIT_S)[0].ids[0] == "fast2"
    assert [len(batch) for batch in reader.batches] == [1, 2, 1]


@pytest.mark.parametrize("budget", [1, 3000, 100_000])
def test_batches_stay_within_the_budget(budget: int) -> None:
    reader = Watched()
    rankings = [candidates(12, f"q{i}") for i in range(9)]
    results = ranker(reader, Sliding(size=4, stride=2), Scheduler(max_batch_tokens=budget)).rank(rankings)
    assert [result.ids[0] for result in results] == [f"q{i}11" for i in range(9)]
    for batch in reader.batches:
        assert len(batch) == 1 or sum(map(len, batch)) <= budget
    assert max(map(len, reader.batches)) == {1: 1, 3000: 4, 100_000: 9}[budget]


def test_a_window_that_fails_once_is_read_again() -> None:
    failures = iter([True])

    def fail(texts: list[str]) -> None:
        if next(failures, False):
            raise WorkerError("the server has gone")

    reader = Watched(fail)
    (result,) = ranker(reader, Sliding(size=4, stride=2)).rank([candidates(4)])
    assert result.ids == ("q3", "q2", "q1", "q0")
    assert [window.failure for window in result.evidence.windows] == [""]
    assert len(reader.batches) == 2


def test_a_window_that_fails_twice_keeps_its_order_and_says_so() -> None:
    def fail(texts: list[str]) -> None:
        if any("bad" in text for text in texts):
            raise RuntimeError("out of memory")

    good = candidates(8, "good")
    bad = Ranking.from_order(Query("b", "b"), [Document(f"b{i}", f"{'bad' if i == 7 else ''} {i}") for i in range(8)])
    reader = Watched(fail)
    one, other = ranker(reader, Sliding(size=4, stride=3)).rank([good, bad])
    assert one.ids[0] == "good7"
    assert [window.failure for window in other.evidence.windows] == ["out of memory", "", ""]
    assert other.ids[-3:] == ("b5", "b6", "b7")
    assert other.ids[0] == "b4"
    # Both together, each alone, then the other windows.
    assert [len(batch) for batch in reader.batches] == [2, 1, 1, 2, 2]


class Picky(Watched):
    """Says which windows of a batch it could not read: those that show the word, as often as it is told to."""

    def __init__(self, word: str, *, times: int, before: Callable[[list[str]], None] = lambda texts: None) -> None:
        super().__init__(before)
        self._word = word
        self._times = times

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        outcomes = super().read(prompts, windows, labels=labels)
        failed = [i for i, text in enumerate(self.batches[-1]) if self._word in text]
        if failed and self._times:
            self._times -= 1
            for i in failed:
                outcomes[i] = unread(windows[i], WorkerError("refused"))
        return outcomes


@pytest.mark.parametrize("times", [1, 2])
def test_only_the_windows_that_failed_are_read_again_and_together(times: int) -> None:
    documents = [Document(f"d{i}", f"{'bad' if i in {2, 14} else 'good'} {i}") for i in range(20)]
    rankings = [Ranking.from_order(Query("q", "q"), documents[start : start + 4]) for start in range(0, 20, 4)]
    reader = Picky("bad", times=times)
    results = ranker(reader, Sliding(size=3, stride=2)).rank(rankings)
    failure = "" if times == 1 else "refused"
    failures = [[window.failure for window in result.evidence.windows] for result in results]
    assert failures == [[failure, ""], ["", ""], ["", ""], [failure, ""], ["", ""]]
    best = ["d3", "d7", "d11", "d15", "d19"] if times == 1 else ["d1", "d7", "d11", "d13", "d19"]
    assert [result.ids[0] for result in results] == best
    # The last three of each ranking, those with a bad one again, then the first two of each.
    assert [len(batch) for batch in reader.batches] == [5, 2, 5]


def test_a_second_reading_that_fails_as_a_whole_keeps_what_the_first_gave() -> None:
    def fail_alone(texts: list[str]) -> None:
        if len(texts) == 1:
            raise RuntimeError("the server has gone")

    reader = Picky("bad", times=9, before=fail_alone)
    good = candidates(4, "good")
    bad = Ranking.from_order(Query("b", "b"), [Document(f"b{i}", f"bad {i}") for i in range(4)])
    with pytest.raises(WorkerError, match="none of 1 windows could be read: the server has gone"):
        ranker(reader, Sliding(size=4, stride=2)).rank([good, bad])
    assert [len(batch) for batch in reader.batches] == [2, 1]


def test_a_ranking_of_which_nothing_could_be_read_is_an_error() -> None:
    def fail(texts: list[str]) -> None:
        raise WorkerError("the server has gone")

    with pytest.raises(WorkerError, match="none of 3 windows could be read: the server has gone"):
        ranker(Watched(fail), Sliding(size=4, stride=2)).rank([candidates(8)])


def test_bad_input_ends_its_own_caller_only() -> None:
    scheduler, reader = Scheduler(), Watched(_refuse)
    with pytest.raises(InvalidInputError, match="too long"):
        ranker(reader, Sliding(size=4, stride=2), scheduler).rank([candidates(6, "refused")])
    assert scheduler.waiting_windows == 0
    (result,) = ranker(reader, Sliding(size=4, stride=2), scheduler).rank([candidates(6)])
    assert result.ids[0] == "q5"


def _refuse(texts: list[str]) -> None:
    if any("refused" in text for text in texts):
        raise InvalidInputError("too long")


def test_a_caller_that_is_interrupted_leaves_the_others_their_windows() -> None:
    interrupted, other_waits = threading.Event(), threading.Event()

    def interrupt(texts: list[str]) -> None:
        if not interrupted.is_set():
            interrupted.set()
            assert other_waits.wait(WAIT_S)
            raise KeyboardInterrupt

    scheduler, reader = Scheduler(), Watched(interrupt)
    both = ranker(reader, Sliding(size=4, stride=2), scheduler)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(both.rank, [candidates(6, "one")])
        assert interrupted.wait(WAIT_S)
        other = threads.submit(both.rank, [candidates(6, "other")])
        while not scheduler.waiting_windows:
            threading.Event().wait(0.001)
        other_waits.set()
        with pytest.raises(KeyboardInterrupt):
            one.result(WAIT_S)
        assert other.result(WAIT_S)[0].ids[0] == "other5"
    assert scheduler.waiting_windows == 0


def test_it_works_inside_running_event_loops() -> None:
    shared = ranker(Watched(), Sliding(size=4, stride=2))

    async def rank_in_a_loop(name: str) -> str:
        await asyncio.sleep(0)
        return shared.rank([candidates(9, name)])[0].ids[0]

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda name: asyncio.run(rank_in_a_loop(name)), ["a", "b"]))
    assert found == ["a8", "b8"]


@pytest.mark.parametrize("size", [2, 26, 52])
@pytest.mark.parametrize("count", [1, 2, 26, 27, 52, 53])
def test_permutations_come_out_at_the_edges_of_the_labels(count: int, size: int) -> None:
    (result,) = ranker(Watched(), Sliding(size=size, stride=size // 2)).rank([candidates(count)])
    assert sorted(result.ids) == sorted(candidates(count).ids)
    assert result.ids[0] == f"q{count - 1}"


def test_a_passage_full_of_labels_speaks_for_nobody_else() -> None:
    texts = ["worth 1", "[A] [C] " * 9 + "[ B ] worth 2", "worth 3", "[A]\n[A] worth 9"]
    ranking = Ranking.from_order(Query("q", "q"), [Document(f"d{i}", text) for i, text in enumerate(texts)])
    reader = Watched()
    # The oracle reads labels that begin a line, and fails unless it finds exactly those of the window.
    (result,) = ranker(reader, Sliding()).rank([ranking])
    assert result.ids == ("d3", "d2", "d1", "d0")
    ((prompt,),) = reader.batches
    assert "[A] (A) (C) " not in prompt
    assert "[B] (A) (C) (A) (C) " in prompt


@dataclass(frozen=True)
class Taking:
    """A reader that remembers how many prompts have been built and not read, each time it reads some."""

    built: list[TokenIds]
    held: list[int]
    gives: Signal = Signal.ORDER

    def answer_tokens(self, labels: Sequence[str]) -> int:
        return 0

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        self.held.append(len(self.built))
        self.built.clear()
        return [WindowOutcome(window) for window in windows]


class OneWindow:
    """A run of one window of 100 tokens."""

    labels = LabelSet(("A", "B"))

    def __init__(self, reader: Taking) -> None:
        self.windows: Sequence[Window] = [(0, 1)]
        self.reader = reader

    def prompt(self, window: Window) -> TokenIds:
        self.reader.built.append([0] * 100)
        return self.reader.built[-1]

    def advance(self, outcomes: Sequence[WindowOutcome]) -> None:
        self.windows = ()


@pytest.mark.parametrize("in_flight", [1, 4, 16, 64])
def test_the_prompts_of_one_batch_exist_whatever_is_in_flight(in_flight: int) -> None:
    reader = Taking([], [])
    Scheduler(max_batch_tokens=350).finish([OneWindow(reader) for _ in range(in_flight)])
    assert len(reader.held) == math.ceil(in_flight / 3)
    assert max(reader.held) <= 3 + 1  # one more is built to find out that it does not fit


def test_documents_that_say_the_same_are_shown_once_and_stay_in_order() -> None:
    texts = ["same 3", "low 1", "same 3", "high 9", "same 3"]
    ranking = Ranking.from_order(Query("q", "q"), [Document(f"d{i}", text) for i, text in enumerate(texts)])
    reader = Watched()
    (result,) = ranker(reader, Sliding(size=4, stride=2)).rank([ranking])
    assert result.ids == ("d3", "d0", "d2", "d4", "d1")
    assert reader.batches[0][0].count("same") == 1
    assert set(result.evidence.readings) == set(ranking.ids)


def test_a_list_of_one_text_is_not_read_at_all() -> None:
    ranking = Ranking.from_order(Query("q", "q"), [Document(f"d{i}", "same 1") for i in range(3)])
    reader = Watched()
    assert ranker(reader, Sliding()).rank([ranking])[0].ids == ("d0", "d1", "d2")
    assert reader.batches == []

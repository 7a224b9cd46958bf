"""Strategies on their own, with a reader that knows the answer."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rankers.errors import ConfigError
from rankers.listwise.aggregate import AGGREGATES
from rankers.listwise.strategies.blocks import Blocks
from rankers.listwise.strategies.elimination import Elimination
from rankers.listwise.strategies.groupwise import Groupwise
from rankers.listwise.strategies.heap import Heap
from rankers.listwise.strategies.single import Single
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.strategies.tournament import Tournament
from rankers.listwise.windows import Signal, Strategy, Window, WindowOutcome, planned_windows
from rankers.types import ScoreKind
from tests.rankers.listwise.strategies_oracle import WorthReader, best_first, play, random_worths

KEEPS_THE_INCOMING_ORDER: list[Strategy] = [
    Single(),
    Sliding(),
    Sliding(size=5, stride=2, passes=3),
    Blocks(),
    Blocks(size=2, repeats=3, aggregate="win-rate"),
    Blocks(size=12, repeats=3, design="latin-square", aggregate="elo"),
    Blocks(size=16, repeats=2, design="triangular", aggregate="pagerank"),
    Blocks(soft=True, repeats=2),
    Heap(),
    Heap(children=2, top_k=3),
    Heap(children=19, top_k=200),
    Elimination(),
    Elimination(size=5, drop=4),
    Groupwise(),
    Groupwise(size=3),
]
STRATEGIES: list[Strategy] = [
    *KEEPS_THE_INCOMING_ORDER,
    Sliding(size=7, stride=3, shuffle_seed=5),
    Tournament(),
    Tournament(size=5, winners=2, top_k=4),
    Tournament(size=2, winners=1, top_k=200),
]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
counts = st.sampled_from([2, 3, 26, 27, 52, 53]) | st.integers(2, 120)
seeds = st.integers(0, 2**32 - 1)
many = settings(max_examples=60)
few = settings(max_examples=20)


@every_strategy
@few
@given(count=counts, seed=seeds)
def test_every_candidate_comes_out_once_whatever_else_the_outcomes_hold(
    strategy: Strategy, count: int, seed: int
) -> None:
    worths = random_worths(count, seed)
    played = play(strategy, count, WorthReader(worths, strategy.needs))
    assert sorted(played.order) == list(range(count))
    scores = played.verdict.scores
    assert len(scores) == (0 if played.verdict.score_kind == ScoreKind.RANK else count)
    assert all(math.isfinite(score) for score in scores)
    assert all(above >= below for above, below in itertools.pairwise(scores))
    # A frozen object without state: the same again.
    assert play(strategy, count, WorthReader(worths, strategy.needs)) == played


@every_strategy
@few
@given(count=counts, seed=seeds)
def test_windows_that_fail_are_survived(strategy: Strategy, count: int, seed: int) -> None:
    fails = {number for number in range(1000) if random.Random(seed + number).random() < 0.3}
    played = play(strategy, count, WorthReader(random_worths(count, seed), strategy.needs, fails=fails))
    assert sorted(played.order) == list(range(count))
    assert all(above >= below for above, below in itertools.pairwise(played.verdict.scores))


@pytest.mark.parametrize("strategy", KEEPS_THE_INCOMING_ORDER, ids=repr)
@few
@given(count=counts)
def test_the_incoming_order_stays_where_every_window_fails(strategy: Strategy, count: int) -> None:
    worths = random_worths(count, 0)
    assert play(strategy, count, WorthReader(worths, strategy.needs, fails=None)).order == list(range(count))


@every_strategy
def test_fewer_than_two_candidates_need_no_window(strategy: Strategy) -> None:
    assert planned_windows(strategy, 1) == planned_windows(strategy, 0) == []


@pytest.mark.parametrize(
    ("strategy", "right"),
    [
        (Single(), 120),
        (Groupwise(), 120),
        (Groupwise(size=3), 120),
        (Sliding(), 10),
        (Sliding(passes=2), 20),
        (Sliding(size=3, stride=1, shuffle_seed=3), 2),
        (Sliding(size=2, stride=1, passes=120), 120),
        (Tournament(), 10),
        (Tournament(size=5, winners=2, top_k=7), 7),
        (Tournament(size=2, winners=1, top_k=120), 120),
        (Tournament(size=20, winners=1), 10),
        (Heap(), 10),
        (Heap(children=2, top_k=4), 4),
        (Heap(children=19, top_k=120), 120),
        (Elimination(), 19),
        (Elimination(size=6, drop=2), 4),
    ],
    ids=repr,
)
@few
@given(count=counts, seed=seeds)
def test_the_top_is_exact_where_every_outcome_is(strategy: Strategy, right: int, count: int, seed: int) -> None:
    worths = random_worths(count, seed)
    # The reader gives no more than is needed: for BEST all but the first place is garbage, for GRADES the whole order.
    order = play(strategy, count, WorthReader(worths, strategy.needs)).order
    assert order[:right] == best_first(worths)[:right]


def test_what_strategies_need() -> None:
    assert Single().needs == Sliding().needs == Elimination().needs == Blocks().needs == Signal.ORDER
    assert Tournament(winners=2).needs == Signal.ORDER
    assert Tournament(winners=1).needs == Heap().needs == Signal.BEST
    assert Blocks(soft=True).needs == Signal.LOGITS
    assert Groupwise().needs == Signal.GRADES
    assert Single().window_size is None
    assert Heap(children=3).window_size == 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        *[
            (lambda size=size, stride=stride: Sliding(size=size, stride=stride), r"(window size|stride) is")
            for size, stride in [(1, 1), (0, 1), (20, 0), (20, 20), (5, -1)]
        ],
        (lambda: Sliding(passes=0), "passes is 0"),
        (lambda: Tournament(size=1), "group size is 1"),
        (lambda: Tournament(size=5, winners=3), "winners is 3, must be from 1 to 2"),
        (lambda: Tournament(winners=0), "winners is 0"),
        (lambda: Tournament(top_k=0), "top_k is 0"),
        (lambda: Heap(children=1), "children is 1, must be at least 2"),
        (lambda: Heap(top_k=0), "top_k is 0"),
        (lambda: Elimination(size=1), "window size is 1"),
        (lambda: Elimination(size=5, drop=5), "drop is 5, must be from 1 to 4"),
        (lambda: Elimination(drop=0), "drop is 0"),
        (lambda: Groupwise(size=2), "group size is 2, must be at least 3"),
        (lambda: Blocks(size=1), "block size is 1"),
        (lambda: Blocks(repeats=1), "repeats is 1, must be at least 2"),
        (lambda: Blocks(design="spiral"), "design is 'spiral', must be one of equi-replicate, latin"),  # type: ignore[arg-type]
        (lambda: Blocks(aggregate="vote"), "aggregate is 'vote', must be one of bradley-terry"),  # type: ignore[arg-type]
        (lambda: Blocks(shown="sorted"), "shown is 'sorted', must be incoming or shuffled"),  # type: ignore[arg-type]
        (lambda: Blocks(design="triangular"), "a triangular design has 2; set repeats to 2"),
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], Strategy], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


# Single


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=30))
def test_single_scores_with_the_log_softmax_of_logits(logits: list[float]) -> None:
    count = len(logits)
    shown = tuple(range(count))
    verdict = play(Single(), count, lambda window: WindowOutcome(shown, tuple(logits), grades=(0.5,) * count)).verdict
    assert verdict.score_kind == ScoreKind.LOG_PROBABILITY
    expected = np.array(logits) - np.log(np.exp(np.array(logits)).sum())
    assert np.allclose(verdict.scores, expected[list(verdict.order)], atol=1e-8)
    assert list(verdict.order) == sorted(shown, key=lambda i: -round(expected[i], 9))


def test_single_falls_back_to_grades_and_to_the_order() -> None:
    graded = play(Single(), 3, lambda window: WindowOutcome((2, 1, 0), grades=(0.5, 1.0, 0.5))).verdict
    # Equal grades stay in the order the reader gave.
    assert (graded.order, graded.scores, graded.score_kind) == ((1, 2, 0), (1.0, 0.5, 0.5), ScoreKind.GRADE)
    ordered = play(Single(), 3, lambda window: WindowOutcome((2, 0, 1))).verdict
    assert (ordered.order, ordered.scores, ordered.score_kind) == ((2, 0, 1), (), ScoreKind.RANK)


# Sliding


def windows_that_change_nothing(strategy: Strategy, count: int) -> list[Window]:
    return play(strategy, count, WorthReader([-float(i) for i in range(count)])).windows


def test_estimates_count_every_pass() -> None:
    assert len(planned_windows(Sliding(passes=3), 100)) == 27


def test_a_hundred_candidates_take_nine_windows_from_back_to_front() -> None:
    windows = windows_that_change_nothing(Sliding(), 100)
    assert [(window[0], window[-1]) for window in windows] == [(80 - 10 * i, 99 - 10 * i) for i in range(9)]
    assert all(len(window) == 20 for window in windows)


@pytest.mark.parametrize(
    ("count", "spans"), [(2, [(0, 1)]), (20, [(0, 19)]), (21, [(1, 20), (0, 10)]), (30, [(10, 29), (0, 19)])]
)
def test_short_lists(count: int, spans: list[tuple[int, int]]) -> None:
    assert [(window[0], window[-1]) for window in windows_that_change_nothing(Sliding(), count)] == spans


sizes = st.integers(2, 12).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size - 1)))


@given(sizes, st.integers(2, 60), seeds)
def test_sliding_brings_the_best_to_the_front_of_any_order(shape: tuple[int, int], count: int, seed: int) -> None:
    size, stride = shape
    worths = random_worths(count, seed)
    played = play(Sliding(size=size, stride=stride), count, WorthReader(worths))
    assert {i for window in played.windows for i in window} == set(range(count))
    # What one window hands to the next are its best size - stride, so those reach the front whatever came in.
    assert played.order[: size - stride] == best_first(worths)[: size - stride]


@given(sizes, st.integers(2, 60))
def test_a_pass_that_changes_nothing_is_the_last(shape: tuple[int, int], count: int) -> None:
    falling = [1 - i / count for i in range(count)]
    once = Sliding(size=shape[0], stride=shape[1])
    often = Sliding(size=shape[0], stride=shape[1], passes=9)
    played = play(often, count, WorthReader(falling))
    assert played.order == list(range(count))
    assert played.windows == windows_that_change_nothing(once, count)


@given(sizes, st.integers(2, 60), st.data())
def test_a_pass_with_a_window_that_failed_is_not_the_last(
    shape: tuple[int, int], count: int, data: st.DataObject
) -> None:
    falling = [1 - i / count for i in range(count)]
    once = len(planned_windows(Sliding(size=shape[0], stride=shape[1]), count))
    fails = data.draw(st.sets(st.integers(0, once - 1), min_size=1))
    often = Sliding(size=shape[0], stride=shape[1], passes=9)
    # Nothing changes in the first pass, but only the second says that nothing has to.
    assert len(play(often, count, WorthReader(falling, fails=fails)).windows) == 2 * once
    # The reader comes back after a pass of which nothing could be read.
    worths = random_worths(count, 1)
    twice = Sliding(size=shape[0], stride=shape[1], passes=2)
    played = play(twice, count, WorthReader(worths, fails=range(once)))
    whole = Sliding(size=shape[0], stride=shape[1])
    assert played.order == play(whole, count, WorthReader(worths)).order


def test_every_pass_reads_the_whole_list_again() -> None:
    worths = random_worths(100, 1)
    once, twice = (play(Sliding(passes=passes), 100, WorthReader(worths)) for passes in (1, 2))
    assert (len(once.windows), len(twice.windows)) == (9, 18)
    assert twice.windows[:9] == once.windows
    assert twice.windows[9] == tuple(once.order[80:])


def test_a_shuffle_is_reproducible() -> None:
    first, again, other = (planned_windows(Sliding(shuffle_seed=seed), 40) for seed in (1, 1, 2))
    assert first == again != other
    assert first[0] != tuple(range(20, 40))


# Tournament


@pytest.mark.parametrize(("size", "winners"), [(20, 2), (20, 1), (5, 2), (5, 1), (7, 3), (2, 1)])
@few
@given(count=counts, seed=seeds)
def test_only_the_path_of_winners_is_read_again(size: int, winners: int, count: int, seed: int) -> None:
    read = WorthReader(random_worths(count, seed))
    first = play(Tournament(size=size, winners=winners, top_k=1), count, read)
    played = play(Tournament(size=size, winners=winners, top_k=10), count, read)
    assert played.steps[: len(first.steps)] == first.steps
    # No group of the same members is read twice, and a round holds no more groups than there were winners to leave.
    assert len({frozenset(window) for window in played.windows}) == len(played.windows)
    assert all(len(step) <= winners for step in played.steps[len(first.steps) :])
    repeated = math.ceil(min(10, count) / winners)
    if len(first.windows) > len(first.steps) * winners and repeated > 1:
        assert len(played.windows) < repeated * len(first.windows)


def test_a_tournament_of_a_hundred() -> None:
    # 20 groups of 5 send 2 each and two groups' best make a group of 4, so the tree halves: 20, 10, 5, 3, 2, 1 groups.
    # The third of 3 and the second of 2 are two candidates without opponents, who go on unread.
    small = play(Tournament(size=5, winners=2, top_k=1), 100, WorthReader(random_worths(100, 3)))
    assert [len(step) for step in small.steps] == [20, 10, 5, 2, 1, 1]
    big = play(Tournament(size=20, winners=2, top_k=10), 100, WorthReader(random_worths(100, 3)))
    assert [len(step) for step in big.steps[:2]] == [5, 1]
    assert len(big.windows) <= 6 + 4 * 3  # four more times two groups and the last
    assert len(big.steps) <= 5 * 2


def test_the_rest_of_a_tournament_follows_by_rounds_survived() -> None:
    # Groups (0 1)(2 3)(4 5)(6 7): 1, 3, 5, 7 go on, then 3 and 7, then 7.
    order = play(Tournament(size=2, winners=1, top_k=1), 8, WorthReader([i / 7 for i in range(8)])).order
    assert order == [7, 3, 1, 5, 0, 2, 4, 6]


# Blocks


def meetings(blocks: Blocks, count: int) -> Counter[frozenset[int]]:
    pairs: Counter[frozenset[int]] = Counter()
    for window in planned_windows(blocks, count):
        pairs.update(map(frozenset, itertools.combinations(window, 2)))
    return pairs


def test_twenty_blocks_of_twenty_in_one_step_for_a_hundred() -> None:
    played = play(Blocks(size=20, repeats=4), 100, WorthReader(random_worths(100, 1)))
    assert len(played.steps) == 1
    assert [len(window) for window in played.windows] == [20] * 20
    assert set(Counter(i for window in played.windows for i in window).values()) == {4}


@many
@given(st.integers(21, 120), st.integers(5, 20), st.integers(2, 6), seeds)
def test_equi_replicate_blocks_are_even(count: int, size: int, repeats: int, seed: int) -> None:
    windows = planned_windows(Blocks(size=size, repeats=repeats, seed=seed), count)
    assert len(windows) == repeats * math.ceil(count / size)
    assert Counter(i for window in windows for i in window) == dict.fromkeys(range(count), repeats)
    lengths = set(map(len, windows))
    assert max(lengths) - min(lengths) <= 1


@many
@example(3, 2, 4, "latin-square", 0)
@given(
    st.sampled_from([20, 50, 100]) | st.integers(2, 120),
    st.integers(2, 6),
    st.integers(2, 4),
    st.sampled_from(["equi-replicate", "latin-square", "triangular"]),
    seeds,
)
def test_a_chain_of_blocks_leads_from_every_candidate_to_every_other(
    count: int, size: int, repeats: int, design: str, seed: int
) -> None:
    repeats = 2 if design == "triangular" else repeats
    blocks = Blocks(size=size, repeats=repeats, design=design, seed=seed)  # type: ignore[arg-type]
    groups = [{candidate} for candidate in range(count)]
    for window in planned_windows(blocks, count):
        met = [group for group in groups if group & set(window)]
        groups = [group for group in groups if group not in met] + [set[int]().union(*met)]
    assert len(groups) == 1


@many
@given(st.integers(21, 120), st.sampled_from(["equi-replicate", "latin-square", "triangular"]), seeds)
def test_blocks_show_the_incoming_order_unless_shuffled(count: int, design: str, seed: int) -> None:
    shown = Blocks(repeats=2, design=design, seed=seed)  # type: ignore[arg-type]
    windows = planned_windows(shown, count)
    shuffled = planned_windows(dataclasses.replace(shown, shown="shuffled"), count)
    assert [tuple(sorted(window)) for window in shuffled] == windows
    assert shuffled != windows


def test_a_full_latin_square() -> None:
    windows = planned_windows(Blocks(size=10, repeats=3, design="latin-square"), 100)
    assert [len(window) for window in windows] == [10] * 30
    assert set(Counter(i for window in windows for i in window).values()) == {3}


def test_a_complete_set_of_orthogonal_squares_is_a_plane_where_all_meet_once() -> None:
    pairs = meetings(Blocks(size=7, repeats=8, design="latin-square"), 49)
    assert len(pairs) == math.comb(49, 2)
    assert set(pairs.values()) == {1}


@many
@given(st.integers(21, 120), st.integers(2, 6), seeds)
def test_no_two_meet_twice_in_orthogonal_squares(count: int, repeats: int, seed: int) -> None:
    blocks = Blocks(size=20, repeats=repeats, design="latin-square", seed=seed)
    windows = planned_windows(blocks, count)
    assert set(meetings(blocks, count).values()) == {1}
    shown = Counter(i for window in windows for i in window)
    assert set(shown) == set(range(count))
    assert max(shown.values()) <= repeats
    if repeats <= 3:  # where the square is the smallest that holds them
        assert all(len(window) >= math.isqrt(count - 1) - 2 for window in windows)


def test_a_full_triangle_where_any_two_blocks_share_one() -> None:
    windows = planned_windows(Blocks(size=14, repeats=2, design="triangular"), 105)
    assert [len(window) for window in windows] == [14] * 15
    assert {len(set(a) & set(b)) for a, b in itertools.combinations(windows, 2)} == {1}


@many
@given(st.integers(21, 210), seeds)
def test_a_triangle_with_places_left_empty(count: int, seed: int) -> None:
    windows = planned_windows(Blocks(size=20, repeats=2, design="triangular", seed=seed), count)
    assert Counter(i for window in windows for i in window) == dict.fromkeys(range(count), 2)
    assert all(len(set(a) & set(b)) <= 1 for a, b in itertools.combinations(windows, 2))
    lengths = set(map(len, windows))
    assert max(lengths) - min(lengths) <= 2


@many
@given(st.integers(21, 300), st.integers(2, 9), st.sampled_from(["latin-square", "triangular"]), st.integers(2, 6))
def test_a_design_grows_until_its_blocks_fit(count: int, size: int, design: str, repeats: int) -> None:
    repeats = 2 if design == "triangular" else repeats
    blocks = Blocks(size=size, repeats=repeats, design=design)  # type: ignore[arg-type]
    windows = planned_windows(blocks, count)
    assert all(2 <= len(window) <= size for window in windows)
    assert set(meetings(blocks, count).values()) == {1}
    assert {i for window in windows for i in window} == set(range(count))


@pytest.mark.parametrize("design", ["equi-replicate", "latin-square", "triangular"])
def test_what_fits_one_window_is_one_window(design: str) -> None:
    worths = random_worths(20, 2)
    played = play(Blocks(repeats=2, design=design), 20, WorthReader(worths))  # type: ignore[arg-type]
    assert played.windows == [tuple(range(20))]
    assert played.order == best_first(worths)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@few
@given(seed=seeds)
def test_every_aggregate_is_exact_where_all_meet(aggregate: str, seed: int) -> None:
    worths = random_worths(25, seed)
    blocks = Blocks(size=5, repeats=6, design="latin-square", aggregate=aggregate, seed=seed)  # type: ignore[arg-type]
    played = play(blocks, 25, WorthReader(worths))
    assert played.order == best_first(worths)
    assert played.verdict.score_kind == AGGREGATES[aggregate][1]


@pytest.mark.parametrize(("soft", "least"), [(False, 0.9), (True, 0.99)])
def test_blocks_come_close_where_few_meet_and_closer_with_logits(soft: bool, least: float) -> None:
    worths = random_worths(100, 4)
    order = play(Blocks(soft=soft), 100, WorthReader(worths, Signal.ORDER | Signal.LOGITS)).order
    places = np.argsort(order)
    assert np.corrcoef(places, np.argsort(best_first(worths)))[0, 1] > least


# Heap


def test_a_heap_in_the_right_order_is_read_level_by_level() -> None:
    falling = [1 - i / 100 for i in range(100)]
    built = play(Heap(children=3, top_k=1), 100, WorthReader(falling))
    assert [len(step) for step in built.steps] == [20, 9, 3, 1]  # nodes 13-32, 4-12, 1-3, 0
    assert built.order == list(range(100))


@given(st.integers(2, 19), counts, seeds)
def test_a_heap_takes_few_windows_and_none_twice(children: int, count: int, seed: int) -> None:
    played = play(Heap(children=children, top_k=10), count, WorthReader(random_worths(count, seed), Signal.BEST))
    assert len(set(played.windows)) == len(played.windows)
    levels, inner = 0, math.ceil((count - 1) / children)
    while sum(children**i for i in range(levels)) < count:
        levels += 1
    # Building: each inner node sinks at most to the bottom; then a path per place after the first.
    assert inner <= len(played.windows) <= inner * (levels - 1) + 9 * (levels - 1)


def test_the_rest_of_a_heap_keeps_the_incoming_order() -> None:
    worths = random_worths(60, 5)
    order = play(Heap(top_k=4), 60, WorthReader(worths, Signal.BEST)).order
    assert order[4:] == sorted(order[4:])


# Elimination


@given(sizes, counts, seeds)
def test_elimination_places_the_worst_last(shape: tuple[int, int], count: int, seed: int) -> None:
    size, drop = shape
    worths = random_worths(count, seed)
    played = play(Elimination(size=size, drop=drop), count, WorthReader(worths))
    assert len(played.steps) == len(played.windows) == math.ceil((count - 1) / drop)
    assert played.windows[0] == tuple(range(max(count - size, 0), count))
    assert played.order[-1] == min(played.windows[0], key=worths.__getitem__)


# Groupwise


def test_groups_are_neighbours_and_read_at_once() -> None:
    played = play(Groupwise(size=20), 53, WorthReader(random_worths(53, 6), Signal.GRADES))
    assert played.steps == ((tuple(range(18)), tuple(range(18, 36)), tuple(range(36, 53))),)
    assert played.verdict.score_kind == ScoreKind.GRADE


def test_equal_grades_keep_the_incoming_order() -> None:
    verdict = play(Groupwise(size=3), 5, WorthReader([0.5, 1.0, 0.5, 1.0, 0.5], Signal.GRADES)).verdict
    assert verdict.order == (1, 3, 0, 2, 4)


@pytest.mark.parametrize(
    ("failed", "order", "scores"),
    [
        (0, (0, 1, 2, 5, 4, 3), (0.9, 0.9, 0.9, 0.9, 0.8, 0.7)),
        (1, (1, 2, 0, 3, 4, 5), (0.6, 0.5, 0.1, 0.1, 0.1, 0.1)),
    ],
)
def test_a_group_that_failed_keeps_its_places(failed: int, order: tuple[int, ...], scores: tuple[float, ...]) -> None:
    reader = WorthReader([0.1, 0.6, 0.5, 0.7, 0.8, 0.9], Signal.GRADES, fails={failed})
    verdict = play(Groupwise(size=3), 6, reader).verdict
    assert (verdict.order, verdict.scores) == (order, scores)

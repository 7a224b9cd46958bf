"""Which pairs of candidates to compare, in what order (arXiv 2306.17563, section 3)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rankers.errors import ConfigError
from rankers.listwise.windows import Verdict
from rankers.types import ScoreKind

Pair = tuple[int, int]
"""Two candidates; a candidate is its place in the incoming ranking, from 0."""

Comparisons = Generator[Sequence[Pair], Sequence[float], Verdict]
"""Yields pairs that may be asked at the same time and is sent what the first of each wins: 1, 1/2 or 0."""


class PairStrategy(Protocol):
    """Which pairs to ask about, in what order. Frozen and without state: one object serves any number of queries."""

    def plan(self, count: int) -> Comparisons:
        """Order `count` candidates, at least 2; a pair that was asked before costs nothing."""
        ...


@dataclass(frozen=True, slots=True)
class AllPairs:
    """Every pair, all at once.

    score(i) = 1/(n-1) sum over j != i of what i wins against j (arXiv 2306.17563, equation 1, divided by the number of
    opponents).

    Examples
    --------
    >>> plan = AllPairs().plan(3)
    >>> next(plan)
    [(0, 1), (0, 2), (1, 2)]
    """

    def plan(self, count: int) -> Comparisons:
        """Order `count` candidates by the share of their comparisons that they win (`ScoreKind.SHARE`)."""
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
        wins = [0.0] * count
        for (i, j), share in zip(pairs, (yield pairs), strict=True):
            wins[i] += share
            wins[j] += 1 - share
        order = sorted(range(count), key=lambda i: -wins[i])
        return Verdict(order, tuple(wins[i] / (count - 1) for i in order), ScoreKind.SHARE)


@dataclass(frozen=True, slots=True)
class HeapSort:
    """Heapsort until the first `top_k` are known, the others in their old order: about n + top_k * 2 log2(n) pairs.

    Nodes of one level of the heap are settled side by side. A tie keeps the order that came in.
    """

    top_k: int = 10

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}, must be at least 1")

    def plan(self, count: int) -> Comparisons:
        """Order `count` candidates (`ScoreKind.RANK`)."""
        heap = list(range(count))
        for level in reversed(range((count // 2).bit_length())):
            nodes = range(2**level - 1, min(2 ** (level + 1) - 1, count // 2))
            yield from _together([_sift_down(heap, node) for node in nodes])
        order: list[int] = []
        while len(order) < min(self.top_k, count):
            order.append(heap[0])
            last = heap.pop()
            if heap:
                heap[0] = last
            if heap and len(order) < self.top_k:
                yield from _together([_sift_down(heap, 0)])
        return Verdict([*order, *sorted(set(range(count)) - set(order))])


@dataclass(frozen=True, slots=True)
class SlidingK:
    """`k` passes of bubble sort from the back: the first k places are settled, at most k * (n - 1) pairs.

    A pass follows the one before it at a distance of two places, so that their pairs are asked together.
    """

    k: int = 10

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}, must be at least 1")

    def plan(self, count: int) -> Comparisons:
        """Order `count` candidates (`ScoreKind.RANK`)."""
        order, passes = list(range(count)), min(self.k, count - 1)
        for step in range(count - 1 + passes - 1):
            # Pass p ends at place p + 1: what stands before that is settled.
            behind = [place for p in range(passes) if p < (place := count - 1 - step + 2 * p) < count]
            outcomes = yield [(order[place - 1], order[place]) for place in behind]
            for place, share in zip(behind, outcomes, strict=True):
                if share < 0.5:
                    order[place - 1], order[place] = order[place], order[place - 1]
        return Verdict(order)


def _sift_down(heap: list[int], node: int) -> Generator[Pair, float, None]:
    """Let the candidate at a node sink to where it belongs; the best is at the root."""
    while (child := 2 * node + 1) < len(heap):
        if child + 1 < len(heap) and not (yield from _comes_first(heap[child], heap[child + 1])):
            child += 1
        if (yield from _comes_first(heap[node], heap[child])):
            return
        heap[node], heap[child] = heap[child], heap[node]
        node = child


def _comes_first(i: int, j: int) -> Generator[Pair, float, bool]:
    share = yield i, j
    return share > 0.5 or (share == 0.5 and i < j)


def _together(plans: Sequence[Generator[Pair, float, None]]) -> Generator[Sequence[Pair], Sequence[float], None]:
    """Run plans that do not touch each other side by side, one pair of each at a time."""
    outcomes: Sequence[float | None] = [None] * len(plans)
    while plans:
        waiting = []
        for plan, share in zip(plans, outcomes, strict=True):
            try:
                waiting.append((plan, next(plan) if share is None else plan.send(share)))
            except StopIteration:
                continue
        plans = [plan for plan, _ in waiting]
        outcomes = (yield [pair for _, pair in waiting]) if waiting else ()


def planned_pairs(strategy: PairStrategy, count: int) -> list[Pair]:
    """List the pairs a strategy asks about where the order that came in is the right one.

    Parameters
    ----------
    strategy
        Any.
    count
        Number of candidates, at least 2.

    Returns
    -------
    list of Pair
        Exact for `AllPairs`, a low estimate for the others.
    """
    found: dict[Pair, None] = {}
    plan = strategy.plan(count)
    try:
        pairs = next(plan)
        while True:
            found |= dict.fromkeys((min(pair), max(pair)) for pair in pairs)
            pairs = plan.send([float(i < j) for i, j in pairs])
    except StopIteration:
        return list(found)

"""Heap sort where the largest of a parent and its children is found with one window (Setwise, arXiv 2310.09497)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from rankers.errors import ConfigError
from rankers.listwise.windows import Plan, Signal, Verdict, Window, WindowOutcome


@dataclass(frozen=True, slots=True)
class Heap:
    """A heap over the incoming order, from which the best `top_k` are taken one by one.

    The incoming order is the initial heap: the better it is, the fewer windows it takes to mend.

    Parameters
    ----------
    children
        Children of a node, at least 2; a window shows a node and its children. 3 in the public code of the paper.
    top_k
        Places to be filled, at least 1.

    Raises
    ------
    ConfigError
        If children or top_k is out of range.
    """

    children: int = 3
    top_k: int = 10

    def __post_init__(self) -> None:
        if self.children < 2:
            raise ConfigError(f"children is {self.children}, must be at least 2, or the heap would be a chain")
        if self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}, must be at least 1")

    @property
    def needs(self) -> Signal:
        """Only the best of a window."""
        return Signal.BEST

    @property
    def window_size(self) -> int:
        """Most candidates in one window."""
        return self.children + 1

    def plan(self, count: int) -> Plan:
        """Fill `top_k` places, exactly if every outcome is right; the others follow in the incoming order.

        Of a window that could not be read, the first in the incoming order is taken for the best. A window that comes
        up again is not read again.

        Parameters
        ----------
        count
            Number of candidates.

        Returns
        -------
        Plan
            The windows of one level of the heap together while it is built, then one at a time.

        Examples
        --------
        >>> from rankers.listwise.windows import planned_windows
        >>> planned_windows(Heap(children=2, top_k=1), 6)
        [(1, 3, 4), (2, 5), (0, 4, 5), (0, 2)]
        """
        known: dict[Window, int] = {}
        heap = list(range(count))
        for level in reversed(self._levels(count)):
            heap = yield from self._sink(heap, level, known)
        placed: list[int] = []
        while heap and len(placed) < self.top_k:
            placed.append(heap[0])
            last = heap.pop()
            if heap and len(placed) < self.top_k:
                heap = yield from self._sink([last, *heap[1:]], [0], known)
        return Verdict((*placed, *sorted(set(range(count)).difference(placed))))

    def _levels(self, count: int) -> list[range]:
        levels, start, width = [], 0, 1
        while start < count:
            levels.append(range(start, min(start + width, count)))
            start, width = start + width, width * self.children
        return levels

    def _sink(
        self, heap: Sequence[int], nodes: Iterable[int], known: dict[Window, int]
    ) -> Generator[Sequence[Window], Sequence[WindowOutcome], list[int]]:
        """Let what stands at nodes of separate subtrees sink to where no child is better, all at the same time."""
        heap = list(heap)
        parents = [node for node in nodes if self._children(heap, node)]
        while parents:
            shown = [(heap[node], *(heap[child] for child in self._children(heap, node))) for node in parents]
            unread = [window for window in shown if window not in known]
            if unread:
                outcomes = yield unread
                for window, outcome in zip(unread, outcomes, strict=True):
                    known[window] = min(window) if outcome.failure else outcome.order[0]
            sunk = []
            for node, window in zip(parents, shown, strict=True):
                best = window.index(known[window])
                if best:
                    child = self._children(heap, node)[best - 1]
                    heap[node], heap[child] = heap[child], heap[node]
                    sunk.append(child)
            parents = [node for node in sunk if self._children(heap, node)]
        return heap

    def _children(self, heap: Sequence[int], node: int) -> range:
        first = node * self.children + 1
        return range(first, min(first + self.children, len(heap)))

"""The seam between which windows to look at (strategies) and how a window is read (readers)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rankers.listwise.labels import LabelSet
from rankers.protocols import TokenIds

Window = tuple[int, ...]
"""Candidates in the order they are shown; a candidate is its place in the incoming ranking, from 0."""

Order = Sequence[int]
"""Every candidate once, best first."""


@dataclass(frozen=True, slots=True)
class WindowOutcome:
    """What a reader made of a window.

    `order` holds the candidates of the window, best first. `logits` are the raw numbers behind it, aligned with the
    order *shown*; empty where the reader has none, because it parsed an answer.
    """

    order: Window
    logits: tuple[float, ...] = ()


Plan = Generator[Sequence[Window], Sequence[WindowOutcome], Order]
"""Yields windows that may be read at the same time, is sent their outcomes, and returns the final order."""


class Strategy(Protocol):
    """Which windows to look at, in what order."""

    @property
    def window_size(self) -> int | None:
        """Most candidates it ever shows in one window; None where one window holds them all."""
        ...

    def plan(self, count: int) -> Plan:
        """Order `count` candidates, at least 2."""
        ...


class Reader(Protocol):
    """How a window is read. Windows of many rankings come together, so that they share forward passes."""

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        """Read windows; `prompts[i]` shows the candidates of `windows[i]` under the first labels, in that order."""
        ...


def planned_windows(strategy: Strategy, count: int) -> list[Window]:
    """List the windows a strategy looks at where every outcome keeps the order shown.

    Parameters
    ----------
    strategy
        Any.
    count
        Number of candidates.

    Returns
    -------
    list of Window
        Exact for strategies whose windows do not depend on outcomes in number and size, an estimate for others.

    Examples
    --------
    >>> from rankers.listwise.strategies.sliding import Sliding
    >>> [len(window) for window in planned_windows(Sliding(size=4, stride=2), 7)]
    [4, 4, 3]
    """
    found: list[Window] = []
    if count < 2:
        return found
    plan = strategy.plan(count)
    try:
        windows = next(plan)
        while True:
            found.extend(windows)
            windows = plan.send([WindowOutcome(window) for window in windows])
    except StopIteration:
        return found

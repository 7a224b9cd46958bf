"""The seam between which windows to look at (strategies) and how a window is read (readers)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from typing import Protocol

from rankers.errors import ConfigError
from rankers.listwise.labels import LabelSet
from rankers.protocols import TokenIds
from rankers.types import ScoreKind

Window = tuple[int, ...]
"""Candidates in the order they are shown; a candidate is its place in the incoming ranking, from 0."""

Order = Sequence[int]
"""Every candidate once, best first."""


class Signal(Flag):
    """What a reader finds out about a window, and what a strategy has to know."""

    BEST = auto()
    """The first place of the order; the rest of it may mean nothing."""
    ORDER = auto()
    """Every place of the order."""
    LOGITS = auto()
    """A number per candidate, comparable within the window."""
    GRADES = auto()
    """A number in [0, 1] per candidate, comparable between windows of one query."""


@dataclass(frozen=True, slots=True)
class WindowOutcome:
    """What a reader made of a window.

    `order` holds the candidates of the window, best first. `logits` and `grades` are aligned with the order *shown*,
    and empty where the reader has none. `repairs` names what was wrong with a written answer, `trace` is the reasoning
    before it, `generated_tokens` what it took to write. `failure` says why a window could not be read: its order is
    then the order shown.
    """

    order: Window
    logits: tuple[float, ...] = ()
    grades: tuple[float, ...] = ()
    repairs: tuple[str, ...] = ()
    trace: str = ""
    generated_tokens: int = 0
    failure: str = ""


def unread(window: Window, error: Exception) -> WindowOutcome:
    """Give the outcome of a window that could not be read: the order shown.

    Parameters
    ----------
    window
        Candidates in the order shown.
    error
        Why; its message becomes the `failure`.

    Returns
    -------
    WindowOutcome
        With a `failure` that is never empty.

    Examples
    --------
    >>> unread((2, 0), MemoryError())
    WindowOutcome(order=(2, 0), logits=(), grades=(), repairs=(), trace='', generated_tokens=0, failure='MemoryError')
    """
    return WindowOutcome(window, failure=str(error) or type(error).__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a strategy concludes: every candidate once, best first.

    `scores[i]` belongs to `order[i]`; they never increase. Without scores `score_kind` is `ScoreKind.RANK`.
    """

    order: Order
    scores: tuple[float, ...] = ()
    score_kind: ScoreKind = ScoreKind.RANK


Plan = Generator[Sequence[Window], Sequence[WindowOutcome], Verdict]
"""Yields windows that may be read at the same time, is sent their outcomes, and returns the verdict."""


class Strategy(Protocol):
    """Which windows to look at, in what order. Frozen and without state: one object serves any number of queries."""

    @property
    def needs(self) -> Signal:
        """What a reader has to find out for it."""
        ...

    @property
    def window_size(self) -> int | None:
        """Most candidates it ever shows in one window; None where one window holds them all."""
        ...

    def plan(self, count: int) -> Plan:
        """Order `count` candidates, at least 2."""
        ...


class Reader(Protocol):
    """How a window is read. Windows of many rankings come together, so that they share forward passes."""

    @property
    def gives(self) -> Signal:
        """What it finds out."""
        ...

    def answer_tokens(self, labels: Sequence[str]) -> int:
        """Most tokens it lets the model write about candidates with these labels; 0 where nothing is written."""
        ...

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        """Read windows; `prompts[i]` shows the candidates of `windows[i]` under the first labels, in that order.

        Where the model says which prompts it failed at, the outcomes of those windows are from `unread`.
        """
        ...


def check_pair(strategy: Strategy, reader: Reader | type[Reader]) -> None:
    """Refuse a strategy that needs what a reader does not find out.

    Parameters
    ----------
    strategy
        Any.
    reader
        Any, or its class.

    Raises
    ------
    ConfigError
        With what is missing.
    """
    gives: Signal = reader.gives  # type: ignore[assignment]  # a class has it too: it is the same for all instances
    missing = strategy.needs & ~gives
    if missing:
        wanted = ", ".join(str(signal.name).lower() for signal in missing)
        given = ", ".join(str(signal.name).lower() for signal in gives)
        raise ConfigError(
            f"{type(strategy).__name__} needs the {wanted} of every window, {_name(reader)} gives only the {given}; "
            "choose another reader or another strategy"
        )


def _name(reader: Reader | type[Reader]) -> str:
    return reader.__name__ if isinstance(reader, type) else type(reader).__name__


def planned_windows(strategy: Strategy, count: int) -> list[Window]:
    """List the windows a strategy looks at where every outcome reverses the order shown.

    Parameters
    ----------
    strategy
        Any.
    count
        Number of candidates.

    Returns
    -------
    list of Window
        Exact for strategies whose windows do not depend on outcomes in number and size, a high estimate for others.

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
            windows = plan.send([_reversed(window) for window in windows])
    except StopIteration:
        return found


def _reversed(window: Window) -> WindowOutcome:
    rising = tuple(float(place) for place in range(len(window)))
    return WindowOutcome(window[::-1], logits=rising, grades=tuple(x / len(window) for x in rising))

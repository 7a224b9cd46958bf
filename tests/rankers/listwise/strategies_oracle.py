"""A reader that knows what candidates are worth, and a table to play strategies on, which checks every window."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from rankers.listwise.windows import Signal, Strategy, Verdict, Window, WindowOutcome


class WorthReader:
    """Finds out the signals it is told to, without error; whatever else an outcome holds is garbage.

    Parameters
    ----------
    worths
        One number in [0, 1] per candidate.
    gives
        What it finds out.
    fails
        Numbers of the windows it cannot read, counted from 0; all of them for None.
    """

    def __init__(
        self, worths: Sequence[float], gives: Signal = Signal.ORDER, *, fails: Collection[int] | None = ()
    ) -> None:
        self._worths = worths
        self._gives = gives
        self._fails = fails
        self._read = 0

    def __call__(self, window: Window) -> WindowOutcome:
        number = self._read
        self._read += 1
        if self._fails is None or number in self._fails:
            return WindowOutcome(window, failure="the answer was empty")
        order = sorted(window, key=self._worths.__getitem__, reverse=True)
        if Signal.ORDER not in self._gives:
            rest = order[1:] if Signal.BEST in self._gives else order
            random.Random(number).shuffle(rest)
            order = [*order[: len(order) - len(rest)], *rest]
        # Logits are off by a constant per window, as real ones are.
        logits = tuple(7 * self._worths[i] + number for i in window) if Signal.LOGITS in self._gives else ()
        grades = tuple(self._worths[i] for i in window) if Signal.GRADES in self._gives else ()
        return WindowOutcome(tuple(order), logits, grades)


@dataclass(frozen=True, slots=True)
class Played:
    """A strategy's end, and the windows it looked at, one list per step."""

    verdict: Verdict
    steps: tuple[tuple[Window, ...], ...]

    @property
    def order(self) -> list[int]:
        return list(self.verdict.order)

    @property
    def windows(self) -> list[Window]:
        return [window for step in self.steps for window in step]


def play(strategy: Strategy, count: int, read: Callable[[Window], WindowOutcome]) -> Played:
    """Play a strategy to its end."""
    steps: list[tuple[Window, ...]] = []
    plan = strategy.plan(count)
    try:
        windows = next(plan)
        while True:
            assert windows, "a step without windows would be a forward pass of nothing"
            for window in windows:
                assert len(set(window)) == len(window), "a candidate is shown once"
                assert set(window) <= set(range(count))
                assert 2 <= len(window) <= (strategy.window_size or count)
            steps.append(tuple(windows))
            windows = plan.send([read(window) for window in windows])
    except StopIteration as stop:
        verdict: Verdict = stop.value
        return Played(verdict, tuple(steps))


def random_worths(count: int, seed: int) -> list[float]:
    """All different, evenly spread from 0 to 1, in random order."""
    worths = [i / (count - 1) for i in range(count)]
    random.Random(seed).shuffle(worths)
    return worths


def best_first(worths: Sequence[float]) -> list[int]:
    return sorted(range(len(worths)), key=worths.__getitem__, reverse=True)

"""Drop the worst and look again (IRanker, arXiv 2506.21638)."""

from __future__ import annotations

from dataclasses import dataclass

from rankers.errors import ConfigError
from rankers.listwise.windows import Plan, Signal, Verdict


@dataclass(frozen=True, slots=True)
class Elimination:
    """The last candidates of the list are shown, the worst of them leave, until one is left.

    Parameters
    ----------
    size
        Most candidates in a window, at least 2.
    drop
        How many leave after a window, from 1 to `size` - 1.

    Raises
    ------
    ConfigError
        If size or drop is out of range.
    """

    size: int = 20
    drop: int = 1

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"window size is {self.size}, must be at least 2")
        if not 1 <= self.drop < self.size:
            raise ConfigError(f"drop is {self.drop}, must be from 1 to {self.size - 1} for windows of {self.size}")

    @property
    def needs(self) -> Signal:
        """The whole order: the worst is its last place."""
        return Signal.ORDER

    @property
    def window_size(self) -> int:
        """Most candidates in one window."""
        return self.size

    def plan(self, count: int) -> Plan:
        """Order candidates from last to first with ceil((count - 1) / drop) windows, one after the other.

        The best `size` - `drop` never leave before the list fits one window, so they are placed exactly if every
        outcome is right. Those left stay in the incoming order.

        Parameters
        ----------
        count
            Number of candidates.

        Returns
        -------
        Plan
            One window at a time.

        Examples
        --------
        >>> from rankers.listwise.windows import planned_windows
        >>> planned_windows(Elimination(size=3, drop=2), 6)
        [(3, 4, 5), (1, 2, 5), (0, 5)]
        """
        left = list(range(count))
        dropped: list[int] = []
        while len(left) > 1:
            (outcome,) = yield [tuple(left[-self.size :])]
            for worst in reversed(outcome.order[1:][-self.drop :]):
                left.remove(worst)
                dropped.append(worst)
        return Verdict((*left, *reversed(dropped)))

"""A window that slides from the back of the list to the front (RankGPT, arXiv 2304.09542; RankVicuna, 2309.15088)."""

from __future__ import annotations

from dataclasses import dataclass

from rankers.errors import ConfigError
from rankers.listwise.windows import Order, Plan


@dataclass(frozen=True, slots=True)
class Sliding:
    """Overlapping windows from back to front: what is good in one is carried into the next.

    Parameters
    ----------
    size
        Candidates in a window, at least 2.
    stride
        Candidates the window moves by, from 1 to `size` - 1; the best `size` - `stride` are carried on.

    Raises
    ------
    ConfigError
        If size or stride is out of range.
    """

    size: int = 20
    stride: int = 10

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"window size is {self.size}, must be at least 2")
        if not 1 <= self.stride < self.size:
            raise ConfigError(f"stride is {self.stride}, must be from 1 to {self.size - 1} for windows of {self.size}")

    @property
    def window_size(self) -> int:
        """Most candidates in one window."""
        return self.size

    def plan(self, count: int) -> Plan:
        """Order candidates with 1 + ceil((count - size) / stride) windows, one after the other.

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
        >>> len(planned_windows(Sliding(), 100))
        9
        """
        order: Order = tuple(range(count))
        end = count
        while True:
            start = max(end - self.size, 0)
            (outcome,) = yield [tuple(order[start:end])]
            order = (*order[:start], *outcome.order, *order[end:])
            if start == 0:
                return order
            end -= self.stride

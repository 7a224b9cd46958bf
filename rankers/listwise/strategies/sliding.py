"""A window that slides from the back of the list to the front (RankGPT, arXiv 2304.09542; RankVicuna, 2309.15088)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from rankers.errors import ConfigError
from rankers.listwise.strategies.single import Single
from rankers.listwise.windows import Plan, Signal, Verdict


@dataclass(frozen=True, slots=True)
class Sliding:
    """Overlapping windows from back to front: what is good in one is carried into the next.

    Parameters
    ----------
    size
        Candidates in a window, at least 2.
    stride
        Candidates the window moves by, from 1 to `size` - 1; the best `size` - `stride` are carried on.
    passes
        Most times the whole list is gone over, at least 1.
    shuffle_seed
        Where given, candidates are shuffled before the first pass, always in the same way.

    Raises
    ------
    ConfigError
        If size, stride or passes is out of range.
    """

    size: int = 20
    stride: int = 10
    passes: int = 1
    shuffle_seed: int | None = None

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"window size is {self.size}, must be at least 2")
        if not 1 <= self.stride < self.size:
            raise ConfigError(f"stride is {self.stride}, must be from 1 to {self.size - 1} for windows of {self.size}")
        if self.passes < 1:
            raise ConfigError(f"passes is {self.passes}, must be at least 1")

    @property
    def needs(self) -> Signal:
        """The whole order."""
        return Signal.ORDER

    @property
    def window_size(self) -> int:
        """Most candidates in one window."""
        return self.size

    def plan(self, count: int) -> Plan:
        """Order candidates with at most `passes` * (1 + ceil((count - size) / stride)) windows, one after the other.

        A pass that changes nothing is the last, as the next would read the very same windows; a window that could not
        be read leaves open whether it would have changed something. A list that fits one window and is read once gets
        the scores of `Single`.

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
        if count <= self.size and self.passes == 1 and self.shuffle_seed is None:
            return (yield from Single().plan(count))
        order = list(range(count))
        if self.shuffle_seed is not None:
            random.Random(self.shuffle_seed).shuffle(order)
        for _ in range(self.passes):
            before, failed = tuple(order), False
            end = count
            while True:
                start = max(end - self.size, 0)
                (outcome,) = yield [tuple(order[start:end])]
                order[start:end] = outcome.order
                failed |= bool(outcome.failure)
                if start == 0:
                    break
                end -= self.stride
            if tuple(order) == before and not failed:
                break
        return Verdict(tuple(order))

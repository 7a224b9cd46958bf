"""A tournament of groups whose best go on, run again for every place at the top (ListT5, arXiv 2402.15838)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from rankers.errors import ConfigError
from rankers.listwise.strategies.groupwise import cut_evenly
from rankers.listwise.windows import Plan, Signal, Verdict, Window


@dataclass(frozen=True, slots=True)
class Tournament:
    """Groups of candidates send their best to a group of the next round, until one group is left.

    Its winners take the first places and leave; then the tournament is run again without them for the next places.
    A group whose members are as before is not read again, so that only the winners' path is.

    Parameters
    ----------
    size
        Most candidates in a group, at least 2.
    winners
        How many of a group go on, from 1 to half of `size`.
    top_k
        Places to be filled, at least 1.

    Raises
    ------
    ConfigError
        If size, winners or top_k is out of range.
    """

    size: int = 20
    winners: int = 2
    top_k: int = 10

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"group size is {self.size}, must be at least 2")
        if not 1 <= self.winners <= self.size // 2:
            raise ConfigError(
                f"winners is {self.winners}, must be from 1 to {self.size // 2}: of groups of {self.size} at most half "
                f"go on, or the rounds would not end"
            )
        if self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}, must be at least 1")

    @property
    def needs(self) -> Signal:
        """The best of a window, or its order where several go on."""
        return Signal.BEST if self.winners == 1 else Signal.ORDER

    @property
    def window_size(self) -> int:
        """Most candidates in one window."""
        return self.size

    def plan(self, count: int) -> Plan:
        """Fill at least `top_k` places, exactly if every outcome is right; the others follow by rounds survived.

        Among those that survived as many rounds the incoming order holds.

        Parameters
        ----------
        count
            Number of candidates.

        Returns
        -------
        Plan
            All groups of a round together.

        Examples
        --------
        >>> from rankers.listwise.windows import planned_windows
        >>> planned_windows(Tournament(size=2, winners=1, top_k=2), 4)  # 3 wins; 2 takes its place and meets 1
        [(0, 1), (2, 3), (1, 3), (1, 2)]
        """
        known: dict[frozenset[int], Window] = {}
        survived = [0] * count
        placed: list[int] = []
        while len(placed) < min(self.top_k, count):
            # The tree of groups is that of the whole list, so that a group without a winner is the same as before.
            groups = [tuple(i for i in group if i not in placed) for group in cut_evenly(range(count), self.size)]
            for rounds in itertools.count(1):
                # All of a small group go on unread, but the last group has to say who comes first.
                enough = self.winners if len(groups) > 1 else 1
                unread = [group for group in groups if len(group) > enough and frozenset(group) not in known]
                if unread:
                    outcomes = yield unread
                    known.update((frozenset(group), o.order) for group, o in zip(unread, outcomes, strict=True))
                best = [known.get(frozenset(group), group)[: self.winners] for group in groups]
                if len(groups) == 1:
                    break
                for survivor in itertools.chain(*best):
                    survived[survivor] = max(survived[survivor], rounds)
                merged = cut_evenly(range(len(best)), self.size // self.winners)
                groups = [tuple(itertools.chain(*(best[i] for i in part))) for part in merged]
            placed.extend(best[0])
        others = sorted(set(range(count)).difference(placed), key=lambda i: (-survived[i], i))
        return Verdict((*placed, *others))

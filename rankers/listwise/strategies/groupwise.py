"""Groups whose members each get a grade of their own, merged by grade (GroupRank, arXiv 2511.11653)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankers.errors import ConfigError
from rankers.listwise.windows import Plan, Signal, Verdict, Window
from rankers.types import ScoreKind


@dataclass(frozen=True, slots=True)
class Groupwise:
    """Every candidate is shown once, next to its neighbours, and graded on a scale that all groups share.

    Parameters
    ----------
    size
        Most candidates in a group, at least 3: pairs would leave one candidate of an odd list alone.

    Raises
    ------
    ConfigError
        If size is out of range.
    """

    size: int = 20

    def __post_init__(self) -> None:
        if self.size < 3:
            raise ConfigError(f"group size is {self.size}, must be at least 3, or a group could hold one candidate")

    @property
    def needs(self) -> Signal:
        """A grade for every candidate."""
        return Signal.GRADES

    @property
    def window_size(self) -> int:
        """Most candidates in one window."""
        return self.size

    def plan(self, count: int) -> Plan:
        """Order candidates by grade, equal grades in the incoming order, with ceil(count / size) windows at once.

        Candidates of a group that could not be read keep their places in the list, with the grade of the one above
        (the first place: below); the others fill the places between.

        Parameters
        ----------
        count
            Number of candidates.

        Returns
        -------
        Plan
            All groups together.

        Examples
        --------
        >>> from rankers.listwise.windows import planned_windows
        >>> planned_windows(Groupwise(size=3), 5)
        [(0, 1, 2), (3, 4)]
        """
        groups = cut_evenly(range(count), self.size)
        outcomes = yield groups
        grades: dict[int, float] = {}
        for group, outcome in zip(groups, outcomes, strict=True):
            if outcome.grades:
                grades.update(zip(group, outcome.grades, strict=True))
        if not grades:
            return Verdict(tuple(range(count)))
        best_first = sorted(sorted(grades), key=lambda candidate: -grades[candidate])
        graded, grade = iter(best_first), grades[best_first[0]]
        order, scores = [], []
        for place in range(count):
            # A candidate without a grade is its own place.
            candidate = next(graded) if place in grades else place
            grade = grades.get(candidate, grade)
            order.append(candidate)
            scores.append(grade)
        return Verdict(tuple(order), tuple(scores), ScoreKind.GRADE)


def cut_evenly(candidates: Sequence[int], size: int) -> list[Window]:
    """Cut a list into as few parts of at most `size` as possible, whose lengths differ by at most one.

    Parameters
    ----------
    candidates
        In order.
    size
        Most of them in a part.

    Returns
    -------
    list of Window
        In order; the longer parts come first.

    Examples
    --------
    >>> cut_evenly(range(7), 3)
    [(0, 1, 2), (3, 4), (5, 6)]
    """
    parts = math.ceil(len(candidates) / size)
    short, longer = divmod(len(candidates), parts)
    starts = [i * short + min(i, longer) for i in range(parts + 1)]
    return [tuple(candidates[start:end]) for start, end in itertools.pairwise(starts)]

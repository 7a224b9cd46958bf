"""The log drawn again: what else it could have been, had other users come, or other queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum

import numpy as np

from rankers.errors import InvalidInputError
from training.ultr.lists import ClickLists, ClickPatterns


class Unit(StrEnum):
    """What is drawn."""

    QUERIES = "queries"
    """With all their sessions: the honest unit when results are to hold for other queries."""
    SESSIONS = "sessions"
    """For these queries only; the better one when there are few of them."""


def resample(lists: ClickLists, *, unit: Unit, replicates: int, seed: int = 0) -> Iterator[ClickLists]:
    """Draw click lists with replacement; their lists, rows and queries keep their numbers, only counts change.

    As many queries are drawn as there are. Sessions are drawn in a Poisson bootstrap: each counts Poisson(1) times, so
    a pattern of n sessions counts Poisson(n) times, and what is collapsed never has to be laid out (Chamandy et al.,
    "Estimating uncertainty for massive data streams", 2012).

    Parameters
    ----------
    lists
        What was shown and clicked.
    unit
        Queries or sessions.
    replicates
        How often.
    seed
        The same seed gives the same draws.

    Yields
    ------
    ClickLists
        One log that could have been.

    Raises
    ------
    InvalidInputError
        If sessions are to be drawn and the lists have no patterns.
    """
    generator = np.random.default_rng(seed)
    patterns = lists.patterns
    if unit is Unit.SESSIONS and patterns is None:
        raise InvalidInputError("these click lists have no patterns to draw sessions from; draw queries, or keep them")
    queries, of_list = np.unique(lists.queries, return_inverse=True)
    for _ in range(replicates):
        if unit is Unit.SESSIONS and patterns is not None:
            yield _counted(lists, replace(patterns, sessions=generator.poisson(patterns.sessions)))
        else:
            times = np.bincount(generator.integers(len(queries), size=len(queries)), minlength=len(queries))[of_list]
            yield replace(
                lists,
                shown=lists.shown * times,
                clicks=lists.clicks * times[:, None],
                patterns=patterns and replace(patterns, sessions=patterns.sessions * times[patterns.lists]),
            )


def _counted(lists: ClickLists, patterns: ClickPatterns) -> ClickLists:
    shown = np.bincount(patterns.lists, weights=patterns.sessions, minlength=len(lists.rows)).astype(np.int64)
    clicks = np.empty(lists.clicks.shape, dtype=np.int64)
    for place in range(len(clicks.T)):
        clicked = patterns.sessions * patterns.clicked[:, place]
        clicks[:, place] = np.bincount(patterns.lists, weights=clicked, minlength=len(lists.rows))
    return replace(lists, shown=shown, clicks=clicks, patterns=patterns)

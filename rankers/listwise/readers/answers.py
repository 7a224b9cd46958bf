"""What a model answers to each of several prompts, where it may fail at some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from rankers.errors import PartialFailureError, WorkerError

_Answer = TypeVar("_Answer")


def ask_each(ask: Callable[[Sequence[int]], Sequence[_Answer]], count: int) -> list[_Answer | WorkerError]:
    """Ask a model about each of several prompts; where it says which it failed at, it is asked about all the others.

    No prompt is sent twice.

    Parameters
    ----------
    ask
        Asks about the prompts at some places, all together, and gives an answer for each.
    count
        Number of prompts.

    Returns
    -------
    list
        For each prompt what the model answered, or why it failed.

    Raises
    ------
    Exception
        Whatever `ask` raises but `PartialFailureError`.

    Examples
    --------
    >>> def ask(places):
    ...     if 1 in places:
    ...         raise PartialFailureError({0: "a"}, {1: WorkerError("refused")})
    ...     return ["c" for _ in places]
    >>> ask_each(ask, 3)
    ['a', WorkerError('refused'), 'c']
    """
    answers: dict[int, _Answer | WorkerError] = {}
    while left := [place for place in range(count) if place not in answers]:
        try:
            answers |= zip(left, ask(left), strict=True)
        except PartialFailureError as error:
            # Each time at least one prompt is done with, as there is no such error without one that failed.
            answers |= {left[i]: cast("_Answer", result) for i, result in error.results.items()}
            answers |= {left[i]: failure for i, failure in error.errors.items()}
    return [answers[place] for place in range(count)]

"""Training by several processes, as ``accelerate launch`` or ``torchrun`` starts them: one writes, the others wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from rankers.errors import InvalidInputError, MissingExtraError

T = TypeVar("T")


def is_first_process() -> bool:
    """Whether this is the process that writes and reports; true where there is only one."""
    first: bool = _state().is_main_process
    return first


def process_count() -> int:
    """How many share the work."""
    count: int = _state().num_processes
    return count


def in_first_process(act: Callable[[], T]) -> T:
    """Have the first process do something, and give all of them its result.

    Parameters
    ----------
    act
        Called in the first process only. If it raises there, the others wait until whoever started them ends them.

    Returns
    -------
    T
        What it returned, pickled on its way to the others.
    """
    state = _state()
    results: list[Any] = [act() if state.is_main_process else None]
    if state.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(results)
    result: T = results[0]
    return result


def share_of(name: str, count: int) -> int:
    """Divide what one step takes evenly among the processes.

    Parameters
    ----------
    name
        Of the setting, for the message.
    count
        Its value.

    Returns
    -------
    int
        The part of each process.

    Raises
    ------
    InvalidInputError
        If it cannot be divided evenly.
    """
    share, rest = divmod(count, process_count())
    if rest:
        raise InvalidInputError(
            f"{name} is {count}, which {process_count()} processes cannot share evenly; make it a multiple of that"
        )
    return share


def _state() -> Any:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingExtraError("accelerate", extra="train") from error
    return PartialState(cpu=not torch.cuda.is_available())

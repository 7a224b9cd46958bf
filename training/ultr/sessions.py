"""Sessions into counts: what makes the cost of learning independent of the length of the log."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.ultr.lists import ClickLists, ClickPatterns

WORD_BITS = 64


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Number of the list and bits of the places clicked, uint64 [P, 1 + words], with sessions int64 [P]."""

    keys: npt.NDArray[np.uint64]
    sessions: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


class SessionCounter:
    """Counts sessions of known lists as they come, in memory that depends on lists and patterns, not on sessions.

    Parameters
    ----------
    lists
        The lists that sessions show; clicks they already have are the start.
    patterns
        Whether to count which places were clicked together as well, which takes a sort of every part added.
    """

    def __init__(self, lists: ClickLists, *, patterns: bool = True) -> None:
        if patterns and lists.sessions and lists.patterns is None:
            raise InvalidInputError(
                "the lists have clicks without patterns; start from lists with patterns, or count none"
            )
        self._lists = lists
        self._clicks = lists.clicks.reshape(-1).copy()
        self._shown = lists.shown.copy()
        self._patterns: _Patterns | None = None
        if patterns and lists.patterns is not None:
            self._patterns = _Patterns(_keys(lists.patterns.lists, lists.patterns.clicked), lists.patterns.sessions)
        elif patterns:
            self._patterns = _Patterns(_keys(np.empty(0, np.int64), np.empty((0, lists.rows.shape[1]), np.bool_)))

    def add(self, list_numbers: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]) -> None:
        """Count n sessions.

        Parameters
        ----------
        list_numbers
            int64 [n], the list each session showed.
        clicked
            bool [n, L], the places clicked.

        Raises
        ------
        InvalidInputError
            If shapes differ, a list is unknown, or a click is after the end of a list.
        """
        lists, places = self._lists.rows.shape
        if clicked.shape != (len(list_numbers), places):
            raise InvalidInputError(f"clicked has shape {clicked.shape}, {(len(list_numbers), places)} is needed")
        if len(list_numbers) and not 0 <= list_numbers.min() <= list_numbers.max() < lists:
            raise InvalidInputError(f"a session shows list {list_numbers.max()}, there are {lists}")
        sessions, clicked_places = np.nonzero(clicked)
        at = list_numbers[sessions] * places + clicked_places
        clicks = np.bincount(at, minlength=lists * places)
        if clicks[~self._lists.mask.reshape(-1)].any():
            raise InvalidInputError("a session clicked a place after the end of its list")
        self._clicks += clicks
        self._shown += np.bincount(list_numbers, minlength=lists)
        if self._patterns is not None and len(list_numbers):
            self._merge(self._patterns, _keys(list_numbers, clicked), np.ones(len(list_numbers), dtype=np.int64))

    def _merge(self, counted: _Patterns, keys: npt.NDArray[np.uint64], sessions: npt.NDArray[np.int64]) -> None:
        keys, sessions = np.concatenate([counted.keys, keys]), np.concatenate([counted.sessions, sessions])
        order = np.lexsort(keys.T[::-1])
        keys, sessions = keys[order], sessions[order]
        first = np.ones(len(keys), dtype=np.bool_)
        first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        self._patterns = _Patterns(keys[first], np.add.reduceat(sessions, np.flatnonzero(first)))

    def counted(self) -> ClickLists:
        """All sessions so far, collapsed."""
        lists, places = self._lists.rows.shape
        patterns = None
        if self._patterns is not None:
            keys, sessions = self._patterns.keys, self._patterns.sessions
            patterns = ClickPatterns(keys[:, 0].astype(np.int64), _places(keys, places), sessions)
        clicks = self._clicks.reshape(lists, places).copy()
        return replace(self._lists, shown=self._shown.copy(), clicks=clicks, patterns=patterns)


def pair_counts(lists: ClickLists) -> npt.NDArray[np.float32]:
    """How many sessions clicked one place of a list and not the other.

    Parameters
    ----------
    lists
        With patterns the counts are exact. Without them clicks are taken as independent given the list, which holds for
        position-based clicks: c_i (1 - c_j / n).

    Returns
    -------
    array
        float32 [S, L, L]: sessions that clicked the place of the row and not that of the column.
    """
    if lists.patterns is None:
        rates = lists.clicks / np.maximum(lists.shown, 1)[:, None]
        counts = lists.clicks[:, :, None] * (1.0 - rates[:, None, :])
    else:
        counts = np.zeros((*lists.rows.shape, lists.rows.shape[1]))
        clicked = lists.patterns.clicked.astype(np.float64)
        weighted = clicked * lists.patterns.sessions[:, None]
        for place in range(lists.rows.shape[1]):
            np.add.at(counts[:, place], lists.patterns.lists, weighted[:, place, None] * (1.0 - clicked))
    return (counts * lists.mask[:, :, None] * lists.mask[:, None, :]).astype(np.float32)


def _keys(list_numbers: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Number of the list, then the places clicked as bits: uint64 [n, 1 + words]."""
    width = -(-clicked.shape[1] // WORD_BITS) * WORD_BITS
    padded = np.zeros((len(clicked), width), dtype=np.bool_)
    padded[:, : clicked.shape[1]] = clicked
    words = np.packbits(padded, axis=1).view(np.uint64)
    return np.concatenate([list_numbers[:, None].astype(np.uint64), words], axis=1)


def _places(keys: npt.NDArray[np.uint64], places: int) -> npt.NDArray[np.bool_]:
    bits = np.unpackbits(np.ascontiguousarray(keys[:, 1:]).view(np.uint8), axis=1)
    return bits[:, :places].astype(np.bool_)

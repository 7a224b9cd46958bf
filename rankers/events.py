"""What was shown and what came of it: the records the loop learns from."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from rankers.errors import InvalidInputError

EventKind = Literal["click", "dwell", "conversion"]
Source = Literal["served", "reported"]
"""Whether we made the ranking, or a search app told us about one of its own."""

LIST = "list"
_GRID = re.compile(r"grid:([1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Layout:
    """How places follow each other on a page: one below the other, or in rows of `columns`.

    Examples
    --------
    >>> Layout.parse("grid:4").place(6)
    (2, 2)
    >>> str(Layout.parse("list"))
    'list'
    """

    columns: int = 1

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read ``list`` or ``grid:COLUMNS``.

        Parameters
        ----------
        text
            As in `Impression.layout`; a grid has 2 to 9999 columns.

        Returns
        -------
        Layout
            A list has one column.

        Raises
        ------
        InvalidInputError
            If it is neither.
        """
        if text == LIST:
            return cls()
        match = _GRID.fullmatch(text)
        if match is None or match[1] == "1":
            raise InvalidInputError(f"layout is {text!r}; write 'list', or 'grid:COLUMNS' with at least 2 columns")
        return cls(int(match[1]))

    def place(self, position: int) -> tuple[int, int]:
        """Row and column, both from 1, of a position that counts from 1."""
        row, column = divmod(position - 1, self.columns)
        return row + 1, column + 1

    def __str__(self) -> str:
        return LIST if self.columns == 1 else f"grid:{self.columns}"


@dataclass(frozen=True, slots=True)
class Impression:
    """A ranking as it was shown.

    `document_ids` are in the order shown, position 1 first. `features[document_id]` are the numbers the ranker saw,
    None where one was missing; `feature_set` names them as ``name@version`` and is empty if all are the caller's own.
    `model_version` names what produced the order, `shown_at` has a time zone. `session_key` and `user_key` are hashes
    (`hash_key`), `layout` reads as `Layout.parse` says. `arms` has, for an interleaved ranking, the pipeline that each
    place came from; it is empty otherwise.
    """

    id: str
    query_text: str
    document_ids: tuple[str, ...]
    pipeline: str
    model_version: str
    shown_at: datetime
    features: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    feature_set: str = ""
    session_key: str | None = None
    user_key: str | None = None
    layout: str = LIST
    source: Source = "served"
    arms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a document of an impression; `id` makes sending it twice harmless.

    `position` counts from 1; None if it was not sent and the impression was not known when the event came. `value` is
    the seconds of a dwell, the worth of a conversion in whatever unit the caller uses, and None for a click.
    """

    id: str
    impression_id: str
    document_id: str
    kind: EventKind
    position: int | None
    happened_at: datetime
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """How much is gone; false if nothing is."""

    impressions: int
    events: int

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(self.impressions + other.impressions, self.events + other.events)

    def __bool__(self) -> bool:
        return bool(self.impressions or self.events)


class ClickLog(Protocol):
    """Durable storage of impressions and events. A record is acknowledged only when it would survive a crash.

    Events may come before their impression, or without one: whether they fit together is for the reader to see.
    """

    def add_impressions(self, impressions: Sequence[Impression]) -> int:
        """Store impressions; ones already stored are skipped. Returns how many were new."""
        ...

    def add_events(self, events: Sequence[Event]) -> int:
        """Store events; ones already stored are skipped. Returns how many were new."""
        ...

    def impression(self, impression_id: str) -> Impression | None:
        """Look one impression up."""
        ...

    def impressions(self, since: int = 0) -> Iterator[tuple[int, Impression]]:
        """Impressions stored after sequence number `since`, each with its own number; none is ever passed over."""
        ...

    def events(self, since: int = 0) -> Iterator[tuple[int, Event]]:
        """Events stored after sequence number `since`, each with its own number; none is ever passed over."""
        ...

    def delete_user(self, user_key: str) -> Deleted:
        """Delete the impressions of a user, and their events."""
        ...

    def delete_before(self, moment: datetime) -> Deleted:
        """Delete impressions shown before a moment with their events, and events that happened before it."""
        ...


def hash_key(value: str, salt: str) -> str:
    """Turn the key of a user or a session into one that says nothing without the salt: HMAC-SHA256 (RFC 2104).

    Parameters
    ----------
    value
        As the search app knows it.
    salt
        A secret. The same salt gives the same hash, so that sessions of one user stay together.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> hash_key("ada", "salt")[:16], hash_key("ada", "pepper")[:16]
    ('eea2850d559a1b7c', '48361492d3e8dd57')
    """
    return hmac.new(salt.encode(), value.encode(), hashlib.sha256).hexdigest()

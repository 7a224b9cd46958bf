"""What was shown and what was clicked: the records the loop learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Impression:
    """A ranking as it was shown.

    `document_ids` are in the order shown, position 1 first; `features[document_id]` are the numbers the ranker saw.
    `model_version` names what produced the order, `shown_at` has a time zone.
    """

    id: str
    query_text: str
    document_ids: tuple[str, ...]
    pipeline: str
    model_version: str
    shown_at: datetime
    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Click:
    """A click on a document of an impression; `id` makes sending it twice harmless, `position` counts from 1."""

    id: str
    impression_id: str
    document_id: str
    position: int
    clicked_at: datetime


class ClickLog(Protocol):
    """Durable storage of impressions and clicks. A record is acknowledged only when it would survive a crash."""

    def add_impressions(self, impressions: Sequence[Impression]) -> int:
        """Store impressions; ones already stored are skipped. Returns how many were new."""
        ...

    def add_clicks(self, clicks: Sequence[Click]) -> int:
        """Store clicks; ones already stored are skipped. Returns how many were new."""
        ...

    def impression(self, impression_id: str) -> Impression | None:
        """Look one impression up."""
        ...

    def impressions(self) -> Iterator[Impression]:
        """All impressions, oldest first."""
        ...

    def clicks(self) -> Iterator[Click]:
        """All clicks, oldest first."""
        ...

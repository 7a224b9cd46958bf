"""The click log as the service uses it: off the event loop, many searches per commit, never in the way of a search."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from app.batching import Batcher
from app.click_log import SqlClickLog
from app.wire.search import SentEvent
from rankers.errors import InvalidInputError, NotFoundError, ShortlistError
from rankers.events import Click, Impression

logger = logging.getLogger(__name__)

MAX_COMMIT = 256
MAX_QUEUE = 10_000


class ImpressionLog:
    """Stores impressions and clicks; a database that cannot be reached is tried again with the next record.

    Parameters
    ----------
    log
        Where they are stored; called on worker threads.
    timeout_s
        Longest a search waits for its impression to be stored.
    """

    def __init__(self, log: SqlClickLog, *, timeout_s: float) -> None:
        self._log = log
        self._timeout_s = timeout_s
        self._writer: Batcher[Impression, None] = Batcher(
            "the click log", self._store, max_batch_tokens=MAX_COMMIT, max_queue_tokens=MAX_QUEUE
        )

    async def add(self, impression: Impression) -> str | None:
        """Store an impression together with those of other searches.

        Parameters
        ----------
        impression
            What is about to be shown.

        Returns
        -------
        str or None
            Its id when it is stored for good. None if that failed or took too long: the search is answered all the
            same, its clicks are lost.
        """
        try:
            future = self._writer.submit(None, impression, cost_tokens=1)
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wrap_future(future)
        except (ShortlistError, TimeoutError) as error:
            logger.warning("impression %s was not logged: %s", impression.id, error or "it took too long")
            return None
        return impression.id

    async def add_clicks(self, events: Sequence[SentEvent]) -> tuple[list[str], int]:
        """Store clicks: all of them or, on an error, none.

        Parameters
        ----------
        events
            As sent.

        Returns
        -------
        tuple
            Their ids in order, and how many were not known before. Both are true for good.

        Raises
        ------
        NotFoundError
            If an impression is not known.
        InvalidInputError
            If a document was not part of its impression, or at another position.
        """
        return await asyncio.to_thread(self._add_clicks, events)

    def close(self) -> None:
        """Stop storing and close the database."""
        self._writer.close()
        self._log.close()

    def _store(self, impressions: Sequence[Impression]) -> list[None]:
        self._log.add_impressions(impressions)
        return [None] * len(impressions)

    def _add_clicks(self, events: Sequence[SentEvent]) -> tuple[list[str], int]:
        impressions = self._log.find_impressions(list({event.impression_id for event in events}))
        now = datetime.now(UTC)
        clicks = [_click(at, event, impressions.get(event.impression_id), now) for at, event in enumerate(events)]
        return [click.id for click in clicks], self._log.add_clicks(clicks)


def _click(at: int, event: SentEvent, impression: Impression | None, now: datetime) -> Click:
    """Check one event against its impression."""
    if impression is None:
        raise NotFoundError(f"events.{at}.impression_id is {event.impression_id!r}: no such impression was logged")
    if event.document_id not in impression.document_ids:
        raise InvalidInputError(
            f"events.{at}.document_id is {event.document_id!r}: not one of the "
            f"{len(impression.document_ids)} documents of impression {impression.id!r}",
            field=f"events.{at}.document_id",
        )
    position = impression.document_ids.index(event.document_id) + 1
    if event.position not in {None, position}:
        raise InvalidInputError(
            f"events.{at}.position is {event.position}: document {event.document_id!r} was shown at {position}",
            field=f"events.{at}.position",
        )
    return Click(
        id=event.id or uuid.uuid4().hex,
        impression_id=impression.id,
        document_id=event.document_id,
        position=position,
        clicked_at=event.clicked_at or now,
    )

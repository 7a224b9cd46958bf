"""The click log as the service uses it: off the event loop, many requests per commit, never in the way of a search."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from app.acceptance import Accepted, Report, accept
from app.batching import Batcher
from app.catalog import Live
from app.engine import EngineResult
from app.wire.events import SentEvent
from index.clicklog.store import Records, SqlClickLog
from rankers.errors import DeadlineError, ShortlistError
from rankers.events import Deleted, Impression, hash_key

logger = logging.getLogger(__name__)

MAX_COMMIT = 256
MAX_QUEUE = 10_000
MAX_EVENTS_COMMIT = 4000
MAX_EVENTS_QUEUE = 40_000
EXPIRY_INTERVAL_S = 3600.0
ADDING = "adding"
"""Commits that can run side by side, where the database gains from it."""
INCOMING = "incoming"
"""In a model version: no stage had its say."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A ranking that is about to be shown, with keys as the search app knows them."""

    impression: Impression
    session: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """Records that are on disk: all `ids`, of which `added` were not known before; `pending` lack an impression."""

    ids: list[str]
    added: int
    pending: int


class ImpressionLog:
    """Stores impressions and events; a database that cannot be reached is tried again with the next record.

    Parameters
    ----------
    log
        Where they are stored; called on worker threads.
    salt
        For hashing keys of users and sessions; the one that the database keeps if None.
    timeout_s
        Longest a search waits for its impression to be stored.
    report_timeout_s
        Longest a report of events waits.
    """

    def __init__(self, log: SqlClickLog, *, salt: str | None, timeout_s: float, report_timeout_s: float) -> None:
        self._log = log
        self._salt = salt
        self._timeout_s = timeout_s
        self._report_timeout_s = report_timeout_s
        self._impressions: Batcher[Shown, None] = Batcher(
            "the click log", self._store_shown, max_batch_tokens=MAX_COMMIT, max_queue_tokens=MAX_QUEUE
        )
        self._reports: Batcher[Report, Stored | ShortlistError] = Batcher(
            "the events of the click log",
            self._store_reports,
            max_batch_tokens=MAX_EVENTS_COMMIT,
            max_queue_tokens=MAX_EVENTS_QUEUE,
            max_threads=log.parallel_writers,
        )

    async def add(self, impression: Impression, *, session: str | None = None, user: str | None = None) -> str | None:
        """Store an impression together with those of other searches.

        Parameters
        ----------
        impression
            What is about to be shown.
        session
            Key of the visit, to be hashed.
        user
            Key of the person, to be hashed.

        Returns
        -------
        str or None
            Its id when it is stored for good. None if that failed or took too long: the search is answered all the
            same, and its events stay pending.
        """
        try:
            future = self._impressions.submit(None, Shown(impression, session, user), cost_tokens=1)
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wrap_future(future)
        except (ShortlistError, TimeoutError) as error:
            logger.warning("impression %s was not logged: %s", impression.id, error or "it took too long")
            return None
        return impression.id

    async def add_events(self, events: Sequence[SentEvent]) -> Stored:
        """Store a report of events together with other reports: all of its events or, on an error, none.

        Parameters
        ----------
        events
            As sent.

        Returns
        -------
        Stored
            What is true for good.

        Raises
        ------
        InvalidInputError
            If an event does not fit its impression; see `app.acceptance.accept`.
        OverloadedError
            If too many events wait to be stored.
        DeadlineError
            If it takes too long; the events may or may not be stored.
        WorkerError
            If the database fails.
        """
        future = self._reports.submit(None, Report(events, datetime.now(UTC)), cost_tokens=len(events), joins=ADDING)
        try:
            async with asyncio.timeout(self._report_timeout_s):
                done = await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineError(
                f"storing {len(events)} events took over {self._report_timeout_s:g} s; send them again, with equal ids"
            ) from None
        if isinstance(done.result, ShortlistError):
            raise done.result
        return done.result

    async def delete_user(self, user: str) -> Deleted:
        """Delete the impressions of a user, and their events.

        Parameters
        ----------
        user
            The key as the search app knows it.

        Returns
        -------
        Deleted
            How much is gone.
        """
        return await asyncio.to_thread(lambda: self._log.delete_user(self._hash(user)))

    async def keep_expiring(self, days: float) -> None:
        """Delete what is older, now and every hour; runs until cancelled."""
        while True:
            try:
                deleted = await asyncio.to_thread(self._log.delete_before, datetime.now(UTC) - timedelta(days=days))
                logger.info("deleted %d impressions and %d events of over %g days ago", *_counts(deleted), days)
            except ShortlistError as error:
                logger.warning("what is over %g days old could not be deleted: %s", days, error)
            await asyncio.sleep(EXPIRY_INTERVAL_S)

    def close(self) -> None:
        """Stop storing and close the database."""
        self._impressions.close()
        self._reports.close()
        self._log.close()

    def _store_shown(self, shown: Sequence[Shown]) -> list[None]:
        self._log.add_impressions(
            [
                replace(
                    one.impression,
                    session_key=self._hash(one.session) if one.session else None,
                    user_key=self._hash(one.user) if one.user else None,
                )
                for one in shown
            ]
        )
        return [None] * len(shown)

    def _store_reports(self, reports: Sequence[Report]) -> list[Stored | ShortlistError]:
        """Store what can be accepted of several reports in one transaction; the others get their error."""
        outcomes: list[Accepted | ShortlistError] = []
        if self._salt is None:
            self._salt = self._log.salt()

        def check(shown: Mapping[str, Sequence[str]]) -> list[Records]:
            outcomes[:] = (self._accept(report, shown) for report in reports)
            return [outcome.records for outcome in outcomes if isinstance(outcome, Accepted)]

        impression_ids = set().union(*(report.impression_ids() for report in reports))
        added = iter(self._log.add_to_shown(sorted(impression_ids), check))
        return [
            Stored(outcome.ids, next(added), outcome.pending) if isinstance(outcome, Accepted) else outcome
            for outcome in outcomes
        ]

    def _accept(self, report: Report, shown: Mapping[str, Sequence[str]]) -> Accepted | ShortlistError:
        try:
            return accept(report, shown, self._hash)
        except ShortlistError as error:
            return error

    def _hash(self, key: str) -> str:
        if self._salt is None:
            self._salt = self._log.salt()
        return hash_key(key, self._salt)


def served_impression(
    live: Live, result: EngineResult, *, layout: str, k: int | None = None, ids: Sequence[str] | None = None
) -> Impression:
    """Record what is about to be shown; the version ends in the last stage that had its say.

    Parameters
    ----------
    live
        What ran.
    result
        What it gave.
    layout
        As in `Impression.layout`.
    k
        Places shown; all if not given.
    ids
        Names of the documents, where their ids in `result` are positions in a request.

    Returns
    -------
    Impression
        With an id of its own, ready for `ImpressionLog.add`.
    """
    ranking = result.ranking if k is None else result.ranking.top(k)
    own = {document.id: document.features for document in ranking.documents if document.features}
    features = replace(result, ranking=ranking).features if result.feature_set else own
    name = {document_id: document_id if ids is None else ids[int(document_id)] for document_id in ranking.ids}
    return Impression(
        id=uuid.uuid4().hex,
        query_text=ranking.query.text,
        document_ids=tuple(name.values()),
        pipeline=live.pipeline.name,
        model_version=live.version_after(result.stages[-1].name if result.stages else INCOMING),
        shown_at=datetime.now(UTC),
        features={name[document_id]: numbers for document_id, numbers in features.items()},
        feature_set=result.feature_set,
        layout=layout,
        arms=result.arms[: len(ranking)],
    )


def _counts(deleted: Deleted) -> tuple[int, int]:
    return deleted.impressions, deleted.events

"""The click log in a database: SQLite in a file, or PostgreSQL for several machines."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from index.clicklog import deletion
from index.clicklog.bulk import KnownIdError, find_document_ids, insert_rows
from index.clicklog.connection import open_engine
from index.clicklog.database import Database
from index.clicklog.rows import as_event, as_impression, event_row, impression_row, require_zone
from index.clicklog.schema import events, impressions, meta
from rankers.events import Deleted, Event, Impression

ROWS_PER_PAGE = 1000
CAREFUL_TRANSACTIONS = 100
SALT = "salt"


@dataclass(frozen=True, slots=True)
class Records:
    """Impressions and events that came together."""

    impressions: Sequence[Impression] = ()
    events: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class LogStatus:
    """What a click log holds.

    `events` are counted by kind; `pending` ones have no impression (yet). `oldest` and `newest` are moments at which
    impressions were shown, None where there are none.
    """

    revision: str
    impressions: int
    events: dict[str, int]
    pending: int
    oldest: datetime | None
    newest: datetime | None


def open_click_log(url: str) -> SqlClickLog:
    """Prepare a click log; the database is reached for with the first call.

    Parameters
    ----------
    url
        ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``. Folder and tables are made when
        missing, and tables of an older version are upgraded.

    Returns
    -------
    SqlClickLog
        Ready to use.

    Raises
    ------
    ConfigError
        If the URL cannot be used.
    MissingExtraError
        If the driver is not installed.
    """
    return SqlClickLog(Database(open_engine(url)))


class SqlClickLog:
    """A `rankers.events.ClickLog` in a database that SQLAlchemy speaks to.

    A call that writes returns when its transaction is on disk, and has then stored all or nothing. Safe to call from
    several threads and processes. Any call raises `WorkerError` if the database fails.

    Parameters
    ----------
    database
        Of its tables; see `open_click_log`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expects_known = 0

    @property
    def parallel_writers(self) -> int:
        """How many calls that add records make sense at a time."""
        return self._database.parallel_writers

    def add(self, groups: Sequence[Records]) -> list[int]:
        """Store several groups of records in one transaction.

        Parameters
        ----------
        groups
            Records whose id is known are skipped.

        Returns
        -------
        list of int
            How many records of each group were new.

        Raises
        ------
        InvalidInputError
            If a record is not what it should be: a time without a zone, a feature that is not finite, ...
        """
        return self.add_to_shown((), lambda _: groups)

    def add_to_shown(
        self, impression_ids: Sequence[str], make_groups: Callable[[Mapping[str, Sequence[str]]], Sequence[Records]]
    ) -> list[int]:
        """Store groups of records that depend on what was shown, in one transaction.

        Parameters
        ----------
        impression_ids
            Any number.
        make_groups
            Called with the ids of the documents shown, in order, by impression id, for those impressions that are
            known. May be called again if the transaction has to be.

        Returns
        -------
        list of int
            How many records of each group were new.

        Raises
        ------
        InvalidInputError
            If a record is not what it should be: a time without a zone, a feature that is not finite, ...
        """

        def insert(connection: sa.Connection, *, all_new: bool) -> list[int]:
            self._database.before_adding(connection)
            rows = [
                ([impression_row(shown) for shown in group.impressions], [event_row(event) for event in group.events])
                for group in make_groups(find_document_ids(connection, impression_ids))
            ]
            return [
                insert_rows(connection, impressions, shown, all_new=all_new)
                + insert_rows(connection, events, happened, all_new=all_new)
                for shown, happened in rows
            ]

        # Records that are sent twice come in a row, after a failure: then it does not pay to expect new ones.
        self._expects_known -= self._expects_known > 0
        if not self._expects_known:
            try:
                return self._database.write(partial(insert, all_new=True))
            except KnownIdError:
                self._expects_known = CAREFUL_TRANSACTIONS
        return self._database.write(partial(insert, all_new=False))

    def add_impressions(self, impressions: Sequence[Impression]) -> int:
        """Store impressions; ones already stored are skipped. Returns how many were new."""
        return self.add([Records(impressions=impressions)])[0]

    def add_events(self, events: Sequence[Event]) -> int:
        """Store events; ones already stored are skipped. Returns how many were new."""
        return self.add([Records(events=events)])[0]

    def impression(self, impression_id: str) -> Impression | None:
        """Look one impression up."""
        query = sa.select(impressions).where(impressions.c.id == impression_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return as_impression(row) if row is not None else None

    def impressions(self, since: int = 0) -> Iterator[tuple[int, Impression]]:
        """Read impressions in the order they were stored, a page at a time.

        Parameters
        ----------
        since
            A sequence number that an earlier reading gave; what was stored up to it is left out.

        Yields
        ------
        tuple
            Sequence number and impression. Whatever is stored later has a higher number.
        """
        for row in self._stored(impressions, since):
            yield row.seq, as_impression(row)

    def events(self, since: int = 0) -> Iterator[tuple[int, Event]]:
        """Read events in the order they were stored, a page at a time.

        Parameters
        ----------
        since
            A sequence number that an earlier reading gave; what was stored up to it is left out.

        Yields
        ------
        tuple
            Sequence number and event. Whatever is stored later has a higher number.
        """
        for row in self._stored(events, since):
            yield row.seq, as_event(row)

    def count_events(self, since: int = 0) -> int:
        """Count events stored after a sequence number, as `events` would give them."""
        last = self._database.last(events)
        query = sa.select(sa.func.count()).select_from(events).where(events.c.seq > since, events.c.seq <= last)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def delete_user(self, user_key: str) -> Deleted:
        """Delete the impressions of a user, named by the hash of `rankers.events.hash_key`, and their events."""
        deleted = self._database.write(lambda connection: deletion.delete_user(connection, user_key))
        self._database.forget()
        return deleted

    def delete_before(self, moment: datetime) -> Deleted:
        """Delete impressions shown before a moment with their events, and events that happened before it.

        Parameters
        ----------
        moment
            With a time zone.

        Returns
        -------
        Deleted
            How much is gone. The work is done in steps; if one fails, those before it stay done.

        Raises
        ------
        InvalidInputError
            If the time has no zone.
        """
        require_zone(moment)
        total = Deleted(0, 0)
        while step := self._database.write(lambda connection: deletion.delete_some_before(connection, moment)):
            total += step
        if total:
            self._database.forget()
        return total

    def salt(self) -> str:
        """Give the salt that the database keeps for hashing keys; the first call makes it up."""
        query = sa.select(meta.c.value).where(meta.c.key == SALT)

        def find_or_make(connection: sa.Connection) -> str:
            insert_rows(connection, meta, [{"key": SALT, "value": secrets.token_hex(32)}])
            return str(connection.execute(query).scalar_one())

        with self._database.read() as connection:
            found = connection.scalar(query)
        return found or self._database.write(find_or_make)

    def status(self) -> LogStatus:
        """Count what there is."""
        shown = sa.select(sa.func.count(), sa.func.min(impressions.c.shown_at), sa.func.max(impressions.c.shown_at))
        kinds = (
            sa.select(events.c.kind, sa.func.count().label("number")).group_by(events.c.kind).order_by(events.c.kind)
        )
        is_known = sa.exists().where(impressions.c.id == events.c.impression_id)
        with self._database.read() as connection:
            count, oldest, newest = connection.execute(shown).one()
            return LogStatus(
                revision=self._database.revision,
                impressions=count,
                events={row.kind: row.number for row in connection.execute(kinds)},
                pending=connection.execute(sa.select(sa.func.count(events.c.seq)).where(~is_known)).scalar_one(),
                oldest=oldest,
                newest=newest,
            )

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def _stored(self, table: sa.Table, since: int) -> Iterator[sa.Row[Any]]:
        """Page by page, each in a transaction of its own: a long one would keep the database from tidying up."""
        last = self._database.last(table)
        while since < last:
            page = sa.select(table).where(table.c.seq > since, table.c.seq <= last).order_by(table.c.seq)
            with self._database.read() as connection:
                rows = connection.execute(page.limit(ROWS_PER_PAGE)).all()
            if not rows:
                return
            yield from rows
            since = rows[-1].seq

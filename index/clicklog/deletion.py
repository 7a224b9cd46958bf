"""Making records disappear: those of a user, and those whose time is over."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from index.clicklog.schema import events, impressions
from rankers.events import Deleted

IMPRESSIONS_PER_STEP = 500
EVENTS_PER_STEP = 5000


def delete_user(connection: sa.Connection, user_key: str) -> Deleted:
    """Delete the impressions of a user and their events, in the transaction of a connection."""
    theirs = impressions.c.user_key == user_key
    of_theirs = events.c.impression_id.in_(sa.select(impressions.c.id).where(theirs))
    gone = connection.execute(sa.delete(events).where(of_theirs)).rowcount
    return Deleted(connection.execute(sa.delete(impressions).where(theirs)).rowcount, gone)


def delete_some_before(connection: sa.Connection, moment: datetime) -> Deleted:
    """Delete some of what is older than a moment, so that other writers get their turn in between.

    Parameters
    ----------
    connection
        In a transaction.
    moment
        With a time zone.

    Returns
    -------
    Deleted
        How much; nothing when there is no more. An event that came late goes with its impression.
    """
    old = sa.select(impressions.c.id).where(impressions.c.shown_at < moment).limit(IMPRESSIONS_PER_STEP)
    ids = list(connection.scalars(old))
    if ids:
        gone = connection.execute(sa.delete(events).where(events.c.impression_id.in_(ids))).rowcount
        return Deleted(connection.execute(sa.delete(impressions).where(impressions.c.id.in_(ids))).rowcount, gone)
    old_events = sa.select(events.c.seq).where(events.c.happened_at < moment).limit(EVENTS_PER_STEP)
    return Deleted(0, connection.execute(sa.delete(events).where(events.c.seq.in_(old_events))).rowcount)

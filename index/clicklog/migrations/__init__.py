"""Bringing the tables of a click log up to date, whoever comes first.

Revisions are Alembic's, run from here and not from its command: a service that starts on an empty or an old database
makes it usable by itself. The version has a table of its own name, because others with an ``alembic_version`` of theirs
(MLflow, for one) may live in the same database.
"""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError

from index.clicklog.schema import POSTGRESQL
from rankers.errors import ConfigError

VERSION_TABLE = "shortlist_log_version"
UNVERSIONED = "0001"
"""What the tables looked like before they had a version."""
_LOCK_KEY = 0x5307715  # any number that other users of the database do not lock
_one_at_a_time = threading.Lock()  # Alembic keeps the migration under way in a global


def migrate(connection: sa.Connection) -> str:
    """Make the tables, or upgrade them, in the transaction of a connection.

    Parameters
    ----------
    connection
        In a transaction; for SQLite one that has the write lock.

    Returns
    -------
    str
        The revision the database has now.

    Raises
    ------
    ConfigError
        If a newer Shortlist made the tables.
    """
    if connection.dialect.name == POSTGRESQL:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
    with _one_at_a_time:
        script = ScriptDirectory(Path(__file__).parent)
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        current = context.get_current_revision()
        if current is None and sa.inspect(connection).has_table("shortlist_impressions"):
            context.stamp(script, UNVERSIONED)
            current = UNVERSIONED
        try:
            missing = list(script.iterate_revisions("head", current or "base"))
        except RevisionError as error:
            raise ConfigError(
                f"the click log has revision {current!r}, which this version of Shortlist does not know; upgrade it"
            ) from error
        with Operations.context(context):
            for revision in reversed(missing):
                revision.module.upgrade()
                context.stamp(script, revision.revision)
    return missing[0].revision if missing else str(current)

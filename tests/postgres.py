"""The PostgreSQL that tests use."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

DEFAULT_POSTGRES = "postgresql+psycopg://root@127.0.0.1:5432/test"


@contextmanager
def empty_schema() -> Iterator[str]:
    """URL of an empty schema in a PostgreSQL database; without one, tests fail, for the code would go untested."""
    url = sa.make_url(os.environ.get("SHORTLIST_TEST_POSTGRES", DEFAULT_POSTGRES))
    schema = f"shortlist_test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    except sa.exc.OperationalError as error:
        pytest.fail(
            f"no PostgreSQL at {url}: {error.orig}\n"
            "Start one, for example with `docker compose up -d postgres`, and name it in "
            "SHORTLIST_TEST_POSTGRES=postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        )
    within = url.update_query_dict({"options": f"-csearch_path={schema}"})
    yield within.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()

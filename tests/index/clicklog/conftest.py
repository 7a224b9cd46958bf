"""A click log in each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from index.clicklog.store import SqlClickLog, open_click_log
from tests.postgres import empty_schema


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty schema in a PostgreSQL database."""
    with empty_schema() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/er/clicks.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def log(url: str) -> Iterator[SqlClickLog]:
    """A click log in it."""
    log = open_click_log(url)
    yield log
    log.close()

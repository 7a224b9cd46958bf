"""A service in a process of its own, and batches of events to send to it; for the benchmarks of ingest."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from index.clicklog.store import open_click_log
from rankers.events import Event, Impression

DEFAULT_POSTGRES = "postgresql+psycopg://root@127.0.0.1:5432/test"
BATCH = 500
START_S = 60
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
# No pipeline is ever opened: ingest needs none.
CONFIG = "default: none\npipelines: {none: {retriever: {kind: bm25}}}\n"


@dataclass(frozen=True)
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


@contextmanager
def running_service(url: str, folder: Path) -> Iterator[Service]:
    """Start the service with this click log, wait until it answers, and kill it in the end."""
    config = folder / "shortlist.yaml"
    config.write_text(CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--config", str(config), "--port", str(port)]
    environment = {**os.environ, "SHORTLIST_CLICK_LOG_URL": url, "SHORTLIST_LOG_LEVEL": "critical"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            service = Service(process, port)
            _wait(service)
            yield service
        finally:
            process.kill()


def _wait(service: Service) -> None:
    ends_at = time.monotonic() + START_S
    while time.monotonic() < ends_at:
        try:
            service.connect().request("GET", "/health")
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("the service did not start")


@contextmanager
def empty_postgres_schema(server: str) -> Iterator[str]:
    """URL of a new schema, which is dropped in the end."""
    url, schema = sa.make_url(server), f"ingest_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    try:
        within = url.update_query_dict({"options": f"-csearch_path={schema}"})
        yield within.render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()


def store_impressions(url: str, count: int = 5000, documents: int = 10) -> list[Impression]:
    """Make the tables and fill them with impressions that clicks can be on."""
    chooser = random.Random(7)
    impressions = [
        Impression(
            id=uuid.uuid4().hex,
            query_text=f"query {chooser.randrange(1000)}",
            document_ids=tuple(f"document-{chooser.randrange(10**6)}" for _ in range(documents)),
            pipeline="first",
            model_version="first@abc/first",
            shown_at=NOON,
        )
        for _ in range(count)
    ]
    log = open_click_log(url)
    for start in range(0, count, 1000):
        log.add_impressions(impressions[start : start + 1000])
    log.close()
    return impressions


def make_clicks(impressions: Sequence[Impression], *, seed: int, count: int = BATCH) -> list[Event]:
    """Clicks on places of impressions, with ids that never come twice."""
    chooser = random.Random(seed)
    clicks = []
    for _ in range(count):
        shown = chooser.choice(impressions)
        place = chooser.randrange(len(shown.document_ids))
        moment = NOON + timedelta(microseconds=chooser.randrange(3600 * 10**6))
        clicks.append(Event(uuid.uuid4().hex, shown.id, shown.document_ids[place], "click", place + 1, moment))
    return clicks


def as_body(events: Sequence[Event]) -> bytes:
    """Write a request for `/v1/events`."""
    sent = [
        {
            "id": event.id,
            "impression_id": event.impression_id,
            "document_id": event.document_id,
            "position": event.position,
            "happened_at": event.happened_at.isoformat(),
        }
        for event in events
    ]
    return json.dumps({"events": sent}).encode()


def send(connection: http.client.HTTPConnection, body: bytes) -> dict[str, object] | None:
    """Send a request; the reply, or None if the service refused it."""
    connection.request("POST", "/v1/events", body, {"content-type": "application/json"})
    response = connection.getresponse()
    reply: dict[str, object] = json.loads(response.read())
    return reply if response.status == 200 else None

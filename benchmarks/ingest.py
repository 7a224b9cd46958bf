"""Events per second through HTTP against the same database's own bulk insert.

    python -m benchmarks.ingest [--url sqlite:///FILE] [--url postgresql+psycopg://...]

Both write the same clicks, 500 per batch, into tables with the same indexes and the same number of rows, and each batch
is on disk before it counts: SQLite in WAL mode with ``synchronous = FULL``, PostgreSQL with its server's settings. The
bulk insert is one transaction per batch over one connection, of rows prepared beforehand: `executemany` of the standard
library's sqlite3, and of psycopg; PostgreSQL's COPY too. Through HTTP a batch is a request to a service in a process of
its own, over keep-alive connections, and what it checks is part of the time: every click is on a known impression. Runs
take turns; a number is the median of its runs.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

import psycopg
import sqlalchemy as sa

from benchmarks.ingest_service import (
    BATCH,
    DEFAULT_POSTGRES,
    as_body,
    empty_postgres_schema,
    make_clicks,
    running_service,
    send,
    store_impressions,
)
from index.clicklog.store import open_click_log
from rankers.events import Event, Impression

COLUMNS = ("id", "impression_id", "document_id", "kind", "position", "happened_at", "value")
Row: TypeAlias = tuple[str, str, str, str, int | None, datetime | str, float | None]
Batches: TypeAlias = Sequence[Sequence[Event]]
WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", help="a folder's SQLite and the tests' PostgreSQL when not given")
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(
        "| database | bulk insert by | events/s, bulk | events/s, HTTP | HTTP / bulk |\n| --- | --- | --- | --- | --- |"
    )
    for url in options.url or ["sqlite", DEFAULT_POSTGRES]:
        rates = measure(url, options.batches, options.connections, options.repeats)
        http = statistics.median(rates.pop("http"))
        for name, found in rates.items():
            bulk = statistics.median(found)
            kind = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
            print(f"| {kind} | {name} | {bulk:,.0f} | {http:,.0f} | {http / bulk:.2f} |", flush=True)


def measure(url: str, batches: int, connections: int, repeats: int) -> dict[str, list[float]]:
    """Events per second by way of writing them."""
    ways: dict[str, Callable[[str, Batches], float]] = {"http": lambda at, work: through_http(at, work, connections)}
    if url.startswith("sqlite"):
        ways["sqlite3 executemany"] = sqlite_executemany
    else:
        ways |= {"psycopg COPY": postgres_copy, "psycopg executemany": postgres_executemany}
    rates = defaultdict(list)
    for repeat in range(repeats):
        for name, way in ways.items():
            with empty_database(url) as database:
                impressions = store_impressions(database)
                seconds = way(database, make_batches(impressions, batches + WARM_UP, seed=repeat))
                check(database, (batches + WARM_UP) * BATCH)
            rates[name].append(batches * BATCH / seconds)
    return rates


@contextmanager
def empty_database(url: str) -> Iterator[str]:
    if not url.startswith("sqlite"):
        with empty_postgres_schema(url) as within:
            yield within
        return
    folder = sa.make_url(url).database if url != "sqlite" else None
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield f"sqlite:///{made}/clicks.sqlite"


def make_batches(impressions: Sequence[Impression], count: int, *, seed: int) -> Batches:
    return [make_clicks(impressions, seed=seed * 10_000 + at) for at in range(count)]


def check(url: str, expected: int) -> None:
    log = open_click_log(url)
    stored = sum(log.status().events.values())
    log.close()
    if stored != expected:
        raise SystemExit(f"{stored} events are in {url}, not {expected}")


def through_http(url: str, batches: Batches, connections: int) -> float:
    bodies = [as_body(batch) for batch in batches]
    with tempfile.TemporaryDirectory() as folder, running_service(url, Path(folder)) as service:
        started = 0.0
        for some in (bodies[:WARM_UP], bodies[WARM_UP:]):
            waiting: SimpleQueue[bytes] = SimpleQueue()
            for body in some:
                waiting.put(body)
            failures: list[object] = []

            def work(waiting: SimpleQueue[bytes] = waiting, failures: list[object] = failures) -> None:
                connection = service.connect()
                try:
                    while True:
                        reply = send(connection, waiting.get_nowait())
                        if reply is None or (reply["added"], reply["pending"]) != (BATCH, 0):
                            failures.append(reply)
                except Empty:
                    connection.close()

            threads = [threading.Thread(target=work) for _ in range(connections)]
            started = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failures:
                raise SystemExit(f"the service answered {failures[0]}")
        return time.perf_counter() - started


def sqlite_executemany(url: str, batches: Batches) -> float:
    connection = sqlite3.connect(str(sa.make_url(url).database), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    insert = f"INSERT INTO shortlist_events ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

    def write(rows: Sequence[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows)
        connection.execute("COMMIT")

    seconds = timed(write, [[as_row(event, moments_as_text=True) for event in batch] for batch in batches])
    connection.close()
    return seconds


def postgres_copy(url: str, batches: Batches) -> float:
    with psycopg.connect(_conninfo(url)) as connection:

        def write(rows: Sequence[Row]) -> None:
            with connection.cursor().copy(f"COPY shortlist_events ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            connection.commit()

        return timed(write, [[as_row(event) for event in batch] for batch in batches])


def postgres_executemany(url: str, batches: Batches) -> float:
    insert = f"INSERT INTO shortlist_events ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"
    with psycopg.connect(_conninfo(url)) as connection:

        def write(rows: Sequence[Row]) -> None:
            connection.cursor().executemany(insert.encode(), rows)
            connection.commit()

        return timed(write, [[as_row(event) for event in batch] for batch in batches])


def timed(write: Callable[[Sequence[Row]], None], batches: Sequence[Sequence[Row]]) -> float:
    for rows in batches[:WARM_UP]:
        write(rows)
    started = time.perf_counter()
    for rows in batches[WARM_UP:]:
        write(rows)
    return time.perf_counter() - started


def as_row(event: Event, *, moments_as_text: bool = False) -> Row:
    moment: datetime | str = event.happened_at
    if moments_as_text:
        moment = event.happened_at.replace(tzinfo=None).isoformat(" ", "microseconds")
    return (event.id, event.impression_id, event.document_id, event.kind, event.position, moment, event.value)


def _conninfo(url: str) -> str:
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


if __name__ == "__main__":
    main()

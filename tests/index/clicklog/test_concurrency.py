"""Several writers, readers beside them, connections that break, processes that are killed."""

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import sqlalchemy as sa

from index.clicklog.connection import open_engine
from index.clicklog.store import SqlClickLog, open_click_log
from tests.index.clicklog.records import CLICK, SHOWN, stored_events

WRITER = [sys.executable, "-m", "tests.index.clicklog.writer"]


def test_threads_write_side_by_side(log: SqlClickLog) -> None:
    def write(worker: int) -> int:
        return sum(log.add_impressions([replace(SHOWN, id=f"{n}")]) for n in range(worker, worker + 20))

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, [0, 10, 20, 30]))
    assert sum(written) == 50
    assert len(list(log.impressions())) == 50


def test_two_processes_write_side_by_side(log: SqlClickLog, url: str) -> None:
    writers = [subprocess.Popen([*WRITER, url, name, "500"], stdout=subprocess.PIPE, text=True) for name in "ab"]
    printed = [set(writer.communicate(timeout=60)[0].split()) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [len(ids) for ids in printed] == [500, 500]
    assert {event.id for event in stored_events(log)} == printed[0] | printed[1]


def test_what_a_killed_process_had_stored_is_there(log: SqlClickLog, url: str) -> None:
    log.status()  # makes the tables
    with subprocess.Popen([*WRITER, url, "k", "0"], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().strip() for _ in range(200)]
        writer.kill()
        acknowledged += writer.stdout.read().split("\n")[:-1]  # the last line may be cut off
    stored = {event.id for event in stored_events(log)}
    assert set(filter(None, acknowledged)) <= stored
    assert len(stored) % 10 == 0  # all of a batch, or none


def test_a_reader_beside_writers_passes_nothing_over(log: SqlClickLog, url: str) -> None:
    count, writers = 300, 3
    log.status()
    started = threading.Barrier(writers + 1)

    def write(name: int) -> None:
        own = open_click_log(url)
        started.wait()
        for n in range(0, count, 5):
            own.add_events([replace(CLICK, id=f"{name}-{at}") for at in range(n, n + 5)])
        own.close()

    with ThreadPoolExecutor(writers) as pool:
        writing = [pool.submit(write, name) for name in range(writers)]
        started.wait()
        last = 0
        seen: list[str] = []
        while not all(one.done() for one in writing) or len(seen) < count * writers:
            for seq, event in log.events(since=last):
                last = seq
                seen.append(event.id)
            for one in writing:
                assert not one.done() or one.exception() is None
    assert len(seen) == len(set(seen)) == count * writers


def test_writers_that_would_wait_for_each_other_both_succeed(postgres_url: str) -> None:
    logs = [open_click_log(postgres_url) for _ in range(2)]
    records = [replace(CLICK, id=f"{n}") for n in range(400)]
    for turn in range(5):
        fresh = [replace(record, id=f"{turn}-{record.id}") for record in records]
        with ThreadPoolExecutor(2) as pool:
            added = list(pool.map(lambda log, batch: log.add_events(batch), logs, [fresh, fresh[::-1]]))
        assert sum(added) == 400
    for log in logs:
        log.close()


def test_connections_that_postgresql_ends_are_replaced(postgres_url: str) -> None:
    log, killer = open_click_log(postgres_url), open_engine(postgres_url)
    log.add_events([CLICK])
    kills, stopping = 0, threading.Event()

    def kill() -> int:
        nonlocal kills
        chooser = random.Random(7)
        ours = sa.text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND query LIKE '%shortlist_events%'"
        )
        while not stopping.is_set():
            with killer.begin() as connection:
                kills += connection.execute(ours).scalar_one()
            time.sleep(chooser.uniform(0.02, 0.06))
        return kills

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        try:
            batches, ends_at = 0, time.monotonic() + 60
            while batches < 150 or (kills < 4 and time.monotonic() < ends_at):
                assert log.add_events([replace(CLICK, id=f"{batches}-{at}") for at in range(20)]) in {0, 20}
                batches += 1
        finally:
            stopping.set()
        assert killing.result() > 3
    assert len(stored_events(log)) == 1 + batches * 20
    log.close()
    killer.dispose()

"""What is acknowledged survives: the service is killed, or PostgreSQL restarted, while clicks come in.

    python -m benchmarks.ingest_kills [--kills 100] [--url sqlite:///FILE | --url postgresql+psycopg://...]
    python -m benchmarks.ingest_kills --restarts 20

Clients send batches of clicks as fast as they are answered. With ``--kills`` the service is ended by SIGKILL at a
random moment and started again on the same database. With ``--restarts`` a PostgreSQL server of this benchmark's own is
restarted in immediate mode, which is a crash, under a service that keeps running, and clients send a batch that was not
acknowledged again, with the same ids. In the end every acknowledged click must be in the database, no batch in part,
and no click twice.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ingest import empty_database
from benchmarks.ingest_service import (
    DEFAULT_POSTGRES,
    Service,
    as_body,
    make_clicks,
    running_service,
    send,
    store_impressions,
)
from index.clicklog.store import open_click_log
from rankers.events import Impression

BATCH = 50
CLIENTS = 3
PORT = 54399
POSTGRES_BIN = Path("/usr/lib/postgresql")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", help="a folder's SQLite and the tests' PostgreSQL when not given")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=0, help="restart PostgreSQL instead of killing the service")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    chooser = random.Random(options.seed)
    print("| database | what | times | acknowledged | lost | twice | in part |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    if options.restarts:
        with own_postgres() as (url, restart):
            report("PostgreSQL", "server restarts", options.restarts, restarts(url, restart, options.restarts, chooser))
        return
    for url in options.url or ["sqlite", DEFAULT_POSTGRES]:
        with empty_database(url) as database:
            kind = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
            report(kind, "kill -9", options.kills, kills(database, options.kills, chooser))


class Senders:
    """Clients that send until they are stopped, and what they were told."""

    def __init__(self, service: Service, impressions: list[Impression], *, insists: bool, seed: int) -> None:
        self.batches: list[list[str]] = []
        self.acknowledged: list[str] = []
        self._service = service
        self._impressions = impressions
        self._insists = insists
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(seed * CLIENTS + n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self, seed: int) -> None:
        connection = self._service.connect()
        number = 0
        while not self._stopping.is_set():
            clicks = make_clicks(self._impressions, seed=seed * 10_000 + number, count=BATCH)
            ids = [click.id for click in clicks]
            self.batches.append(ids)
            number += 1
            while not self._is_acknowledged(connection, as_body(clicks)):
                if not self._insists:
                    return
                time.sleep(0.05)
            self.acknowledged += ids

    def _is_acknowledged(self, connection: http.client.HTTPConnection, body: bytes) -> bool:
        try:
            return send(connection, body) is not None
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            return False


def kills(url: str, times: int, chooser: random.Random) -> tuple[int, int, int, int]:
    """Kill the service again and again; what was acknowledged, and how much of it was lost, twice or in part."""
    impressions = store_impressions(url, count=200)
    acknowledged: list[str] = []
    batches: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(times):
            with running_service(url, Path(folder)) as service:
                senders = Senders(service, impressions, insists=False, seed=number)
                time.sleep(chooser.uniform(0.05, 0.6))
                service.process.kill()
                senders.stop()
            acknowledged += senders.acknowledged
            batches += senders.batches
            show_progress(number + 1, times, len(acknowledged))
    return compare(url, acknowledged, batches)


def restarts(url: str, restart: list[str], times: int, chooser: random.Random) -> tuple[int, int, int, int]:
    """Crash the database server again and again under a service that keeps running."""
    impressions = store_impressions(url, count=200)
    with tempfile.TemporaryDirectory() as folder, running_service(url, Path(folder)) as service:
        senders = Senders(service, impressions, insists=True, seed=0)
        for number in range(times):
            time.sleep(chooser.uniform(0.1, 1.0))
            subprocess.run(restart, check=True, stdout=subprocess.DEVNULL)
            show_progress(number + 1, times, len(senders.acknowledged))
        time.sleep(1)
        senders.stop()
    return compare(url, senders.acknowledged, senders.batches)


def compare(url: str, acknowledged: list[str], batches: list[list[str]]) -> tuple[int, int, int, int]:
    log = open_click_log(url)
    stored = [event.id for _, event in log.events()]
    log.close()
    known = set(stored)
    in_part = sum(0 < len(known.intersection(batch)) < len(batch) for batch in batches)
    return len(acknowledged), len(set(acknowledged) - known), len(stored) - len(known), in_part


def report(database: str, what: str, times: int, found: tuple[int, int, int, int]) -> None:
    print(f"| {database} | {what} | {times} | {' | '.join(f'{number:,}' for number in found)} |", flush=True)
    if any(found[1:]):
        raise SystemExit("a promise was broken")


def show_progress(done: int, times: int, acknowledged: int) -> None:
    if sys.stderr.isatty():
        print(f"{done}/{times}, {acknowledged:,} acknowledged", end="\r", file=sys.stderr)


@contextmanager
def own_postgres() -> Iterator[tuple[str, list[str]]]:
    """A PostgreSQL server for this benchmark alone, with its URL and the command that restarts it; never as root."""
    versions = sorted(POSTGRES_BIN.glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("pg_ctl") or (str(versions[-1] / "pg_ctl") if versions else None)
    if found is None:
        raise SystemExit("there is no pg_ctl; install PostgreSQL's server")
    as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    data = str(folder / "data")
    control = [*as_owner, found, "-D", data, "-w", "-l", str(folder / "log")]
    server = f"-p {PORT} -k {folder} -c listen_addresses=127.0.0.1"
    try:
        initdb = str(Path(found).with_name("initdb"))
        subprocess.run([*as_owner, initdb, "-D", data, "-U", "bench", "-A", "trust"], check=True, capture_output=True)
        subprocess.run([*control, "-o", server, "start"], check=True, stdout=subprocess.DEVNULL)
        yield f"postgresql+psycopg://bench@127.0.0.1:{PORT}/postgres", [*control, "-m", "immediate", "restart"]
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

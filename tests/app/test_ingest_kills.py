"""What the service has acknowledged is there after it was killed; `benchmarks.ingest_kills` does it 100 times."""

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from index.clicklog.store import open_click_log

CLIENTS = 3
BATCH = 20


@pytest.mark.parametrize(("database", "kills"), [("sqlite", 6), ("postgresql", 2)])
def test_kill_9_loses_nothing_acknowledged(
    database: str, kills: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    postgres = str(request.getfixturevalue("postgres_url")) if database == "postgresql" else ""
    url = postgres or f"sqlite:///{tmp_path}/clicks.sqlite"
    chooser = random.Random(7)
    acknowledged: list[str] = []
    for kill in range(kills):
        with subprocess.Popen([sys.executable, "-m", "tests.app.log_server", url], stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            address = server.stdout.readline().decode().strip()
            clients = [
                threading.Thread(target=_send_until_it_dies, args=(address, f"{kill}-{client}", acknowledged))
                for client in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            before = len(acknowledged)
            while len(acknowledged) == before and server.poll() is None:
                time.sleep(0.001)
            time.sleep(chooser.uniform(0, 0.3))
            server.kill()
            for client in clients:
                client.join()
    log = open_click_log(url)
    stored = [event.id for _, event in log.events()]
    log.close()
    assert len(acknowledged) > kills * BATCH
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    assert len(stored) % BATCH == 0  # all of a request, or none


def _send_until_it_dies(address: str, name: str, acknowledged: list[str]) -> None:
    number = 0
    with httpx.Client(base_url=address, timeout=30) as client:
        while True:
            ids = [f"{name}-{number}-{at}" for at in range(BATCH)]
            events = [{"id": one, "impression_id": "i", "document_id": "d"} for one in ids]
            number += 1
            try:
                reply = client.post("/v1/events", json={"events": events})
            except httpx.TransportError:
                return
            assert reply.status_code == 200, reply.text
            acknowledged += ids

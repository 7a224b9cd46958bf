"""The service on a free port of this machine, served as in production: by uvicorn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.catalog import PipelineSource
from app.main import create_app
from app.settings import Settings
from tests.postgres import empty_schema

READY_S = 60

Serve = Callable[..., httpx.Client]
"""``serve(pipelines, **settings)``: a client of a service that runs until the end of the test."""


@contextmanager
def serving(service: FastAPI) -> Iterator[str]:
    """Run a service in a thread; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(service, port=0, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


def wait_until_ready(client: httpx.Client) -> None:
    """Ask /ready until it says yes."""
    ends_at = time.monotonic() + READY_S
    while not (reply := client.get("/ready")).is_success:
        assert time.monotonic() < ends_at, reply.text
        time.sleep(0.01)


@contextmanager
def running(
    pipelines: PipelineSource, folder: Path, *, ready: bool = True, **settings: object
) -> Iterator[httpx.Client]:
    """Run a service over these pipelines; gives a client of it."""
    chosen = Settings.model_validate({"click_log_url": f"sqlite:///{folder}/clicks.sqlite", **settings})
    with (
        serving(create_app(chosen, pipelines)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        if ready:
            wait_until_ready(client)
        yield client


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start services that end with the test."""
    with ExitStack() as stack:
        yield lambda pipelines, **settings: stack.enter_context(running(pipelines, tmp_path, **settings))


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty schema in a PostgreSQL database."""
    with empty_schema() as url:
        yield url

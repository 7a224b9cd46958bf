"""`shortlist demo`: the whole way, from nothing to a page to type in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.table import Table

from app.cli.console import DEFAULT_CONFIG, ConfigOption, err, out, progress_line
from index.directory import IndexDirectory
from index.pipelines import Pipelines, load_pipelines
from index.sources import read_documents
from rankers.errors import NotReadyError
from rankers.sources import PULLABLE

SOURCE = "python-docs"
QUERY = "how does a with statement call enter and exit"
DOCUMENTS = [
    "The else clause of a for loop runs when the loop was not left by break.",
    "The with statement wraps a block with methods of a context manager, so that a file is always closed.",
    "A lambda expression creates an anonymous function.",
    "The finally clause of a try statement is executed on the way out, whatever happened before.",
]
CANDIDATES, SHOWN = 20, 10
READY_TIMEOUT_S = 120.0


def demo(
    config: ConfigOption = DEFAULT_CONFIG,
    port: Annotated[int, typer.Option(help="Port of the service.")] = 8000,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when both rankings are shown; leave no page open.")
    ] = False,
) -> None:
    """Index the Python language reference, start the service, search and rerank, and leave the page open."""
    pipelines = load_pipelines(config)
    _prepare(pipelines)
    with _service(config, port) as client:
        _show_search(client)
        _show_rerank(client)
        if not once:
            err.print(f"\nThe page is at [bold]{client.base_url}[/]. Ctrl-C stops the service.")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                err.print("stopped")


def _prepare(pipelines: Pipelines) -> None:
    from rankers.pull import pull_model

    for name in sorted(PULLABLE):
        pull_model(name, models_dir=pipelines.models_dir, on_progress=err.print)
    directory = IndexDirectory(pipelines.index_dir)
    try:
        manifest = directory.manifest()
    except NotReadyError:
        directory.corpus.append(read_documents(SOURCE))
        manifest = directory.build(
            encoder=pipelines.encoder(), encoder_name=pipelines.spec.encoder, on_progress=progress_line
        )
    err.print(f"{manifest.documents:,} passages indexed")


@contextmanager
def _service(config: Path, port: int) -> Iterator[httpx.Client]:
    command = [sys.executable, "-m", "app.cli", "serve", "--config", str(config), "--port", str(port)]
    with (
        subprocess.Popen(command, env={**os.environ, "SHORTLIST_LOG_LEVEL": "warning"}) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=READY_TIMEOUT_S) as client,
    ):
        try:
            with err.status("starting the service"):
                _wait_until_ready(client, server)
            yield client
        finally:
            server.terminate()


def _wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise NotReadyError(f"the service stopped with status {server.returncode}; its last lines say why")
        try:
            if client.get("/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise NotReadyError(f"the service was not ready after {READY_TIMEOUT_S:.0f} s")


def _show_search(client: httpx.Client) -> None:
    reply = client.post("/v1/search", json={"query": QUERY, "top_k": CANDIDATES}).raise_for_status().json()
    first = reply["stages"][0]["name"]
    results = reply["results"]
    before = sorted(results, key=lambda result: result["stages"][first]["rank"])
    rows = [(_line(was["document"]), _line(now["document"])) for was, now in zip(before, results, strict=True)]
    _show("POST /v1/search", QUERY, rows[:SHOWN], reply["stages"])


def _show_rerank(client: httpx.Client) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS}
    reply = client.post("/v1/rerank", json=body).raise_for_status().json()
    after = [DOCUMENTS[result["index"]] for result in reply["results"]]
    _show("POST /v1/rerank", QUERY, list(zip(DOCUMENTS, after, strict=True)), reply["meta"]["stages"])


def _line(document: dict[str, Any]) -> str:
    return f"[bold]{document['title']}[/] {' '.join(document['text'].split())}"


def _show(title: str, query: str, rows: list[tuple[str, str]], stages: list[dict[str, Any]]) -> None:
    timing = " · ".join(f"{stage['name']} {stage['ms']:,.0f} ms" for stage in stages)
    table = Table(
        expand=True, title=f"{title}  [italic]{query}[/]", caption=timing, title_justify="left", caption_justify="left"
    )
    table.add_column("#", justify="right")
    table.add_column("before", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("after", ratio=1, no_wrap=True, overflow="ellipsis")
    for rank, (was, now) in enumerate(rows, start=1):
        table.add_row(str(rank), was, now)
    out.print(table)

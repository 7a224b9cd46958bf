"""`shortlist demo-loop`: simulated users with known preferences click, and the page shows what is made of it.

Two loops learn from the same clicks: one believes that all places are looked at, one learns where people look. Both go
through the same gate into the same registry, and the service swaps their models while it serves.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer
import yaml
from rich.table import Table

from app.cli.console import err, out
from app.cli.demo_rounds import ARMS, CANDIDATES, PRODUCTION, Board, Rounds, find_candidates
from app.cli.demo_users import CODE, Audience, headings, with_code
from index.directory import IndexDirectory
from index.sources import read_documents
from rankers.errors import InvalidInputError, MissingExtraError, NotReadyError
from rankers.ltr.features import load_feature_set

FOLDER = Path("var/demo-loop")
SOURCE = "python-docs"
FEATURES = {
    "name": "demo-loop",
    "version": 1,
    # No rank and no score of the retriever: in the first lists they are the place, which clicks must be freed of.
    "features": [
        {"name": "title_overlap", "kind": "overlap", "part": "title"},
        {"name": "text_overlap", "kind": "overlap", "part": "text"},
        {"name": "coverage", "kind": "coverage"},
        {"name": "proximity", "kind": "proximity"},
        {"name": "query_length", "kind": "length", "part": "query"},
        {"name": "text_length", "kind": "length", "part": "text"},
        {"name": CODE, "kind": "caller"},
    ],
}
GATE = {"min_sessions": 200, "min_clicks": 100, "confidence": 0.8, "max_curve_change": 0.25}
START_S = 60.0


def demo_loop(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service; 0 takes a free one.")] = 8000,
    rounds: Annotated[int, typer.Option(min=1, help="How often to search, click, learn and decide.")] = 4,
    searches: Annotated[int, typer.Option(min=1, help="Searches of simulated users per round.")] = 1200,
    queries: Annotated[int, typer.Option(min=1, help="Queries that users ask; the others only measure.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="Of what users do and learners draw.")] = 0,
    *,
    once: Annotated[
        bool,
        typer.Option("--once", help="Stop after the rounds; exit status 1 if the debiased ranking is not better."),
    ] = False,
) -> None:
    """Let simulated users click, learn from it round by round, and show the ranking getting better on a page."""
    if importlib.util.find_spec("duckdb") is None:
        raise MissingExtraError("duckdb", extra="train")
    board = Board(rounds=rounds)
    with _listening(port) as listening:
        features = _prepare(FOLDER, seed=seed)
        with _service(FOLDER, listening, board) as client:
            err.print(f"The page is at [bold]{client.base_url.join('/demo')}[/].")
            candidates = find_candidates(client, headings(list(read_documents(SOURCE))))
            audience = Audience.meet(candidates, load_feature_set(features), asked=queries, seed=seed)
            try:
                Rounds(client, audience, board, FOLDER, seed=seed).run(rounds, searches=searches)
            except BaseException:
                board.show(state="failed", doing="it stopped before the end, the terminal says why")
                raise
            _print(board)
            if not once:
                err.print("Ctrl-C stops the service.")
                _wait_for_ctrl_c()
    if board.last("held_out")["debiased"] <= board.last("held_out")[PRODUCTION]:
        err.print("[red]the debiased ranking is not better than production on queries that nobody clicked on[/]")
        raise typer.Exit(1)


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Take the port before anything is written: a demonstration that runs already keeps its folder."""
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InvalidInputError(f"port is {port}, which cannot be used ({error}); choose another --port") from error
    with listening:
        yield listening


def _prepare(folder: Path, *, seed: int) -> Path:
    """Write a fresh folder: an index, no model, no click, the settings of the service and of both loops."""
    if folder.exists():
        shutil.rmtree(folder)
    directory = IndexDirectory(folder / "index")
    directory.corpus.append(with_code(document) for document in read_documents(SOURCE))
    directory.build(encoder=None, encoder_name=None)
    directory.corpus.close()
    features = (folder / "features.yaml").absolute()
    _write(features, FEATURES)
    retriever = {"kind": "bm25"}
    pipelines: dict[str, object] = {PRODUCTION: {"retriever": retriever}}
    for arm, learner in ARMS.items():
        model = f"demo-{arm}"
        stage = {"kind": "ltr", "model": model, "depth": CANDIDATES, "feature_set": str(features)}
        pipelines[arm] = {"retriever": retriever, "stages": [stage]}
        loop = {"model": model, "learner": learner, "config": "shortlist.yaml", "work_dir": "loop", "seed": seed}
        _write(folder / f"loop-{arm}.yaml", {**loop, "log": "sqlite:///clicks.sqlite", "gate": {"clicks": GATE}})
    paths = {"index": "index", "models_dir": "models"}
    _write(folder / "shortlist.yaml", {**paths, "default": PRODUCTION, "pipelines": pipelines})
    return features


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@contextmanager
def _service(folder: Path, listening: socket.socket, board: Board) -> Iterator[httpx.Client]:
    """Serve on a thread of this process, which is where the page's numbers are."""
    import uvicorn
    from fastapi.responses import FileResponse

    from app.main import WEB, create_app
    from app.settings import Settings

    settings = Settings(config=folder / "shortlist.yaml").model_copy(
        update={"click_log_url": f"sqlite:///{folder}/clicks.sqlite", "refresh_interval_s": 0.5, "api_keys": ()}
    )
    fastapi = create_app(settings)
    fastapi.add_api_route("/demo", lambda: FileResponse(WEB / "loop.html"), include_in_schema=False)
    fastapi.add_api_route("/demo/progress", lambda: board.shown, include_in_schema=False)
    server = uvicorn.Server(uvicorn.Config(fastapi, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=START_S) as client:
            _wait_until_ready(client, thread)
            yield client
    finally:
        server.should_exit = True
        thread.join()


def _wait_until_ready(client: httpx.Client, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and thread.is_alive():
        live = client.get("/v1/pipelines").json()["pipelines"]
        if all(pipeline["search"] for pipeline in live):
            return
        time.sleep(0.05)
    raise NotReadyError(f"the service was not ready after {START_S:.0f} s; its last lines say why")


def _print(board: Board) -> None:
    table = Table(title="nDCG@10 against what the users like", title_justify="left")
    table.add_column("round", justify="right")
    names = [PRODUCTION, *ARMS]
    for which in ("clicked", "held out"):
        for name in names:
            table.add_column(f"{name}\n{which}", justify="right")
    for measured in board.measures:
        values = [measured[which][name] for which in ("clicked", "held_out") for name in names]
        table.add_row(str(measured["round"]), *(f"{value:.3f}" for value in values))
    out.print(table)


def _wait_for_ctrl_c() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        err.print("stopped")

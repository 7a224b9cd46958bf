"""A service in a process of its own, to be killed: ``python -m tests.app.log_server URL`` prints its address."""

from __future__ import annotations

import socket
import sys

import uvicorn

from app.main import create_app
from app.settings import Settings
from tests.app.fakes import FakePipelines, WordRanker, pipeline_of


def main() -> None:
    service = create_app(
        Settings(click_log_url=sys.argv[1]), FakePipelines({"words": lambda: pipeline_of(WordRanker())})
    )
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(service, log_level="critical")).run(sockets=[listening])


if __name__ == "__main__":
    main()

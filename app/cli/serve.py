"""`shortlist init` and `shortlist serve`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

import index
from app.cli.console import DEFAULT_CONFIG, ConfigOption, err
from rankers.errors import InvalidInputError


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the configuration.")] = DEFAULT_CONFIG,
) -> None:
    """Write a configuration to start from."""
    if path.exists():
        raise InvalidInputError(f"{path} exists; delete it first, or name another file", field="path")
    package = Path(index.__file__).parent
    # In an installed package the file lies beside the code, in a source checkout at the top.
    template = next(place for place in (package / path.name, package.parent / DEFAULT_CONFIG) if place.is_file())
    shutil.copyfile(template, path)
    err.print(
        f"wrote {path}; next: shortlist models pull minilm-cross-encoder, shortlist index build SOURCE, shortlist serve"
    )


def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Start the service. Everything else is set through SHORTLIST_... variables."""
    import gc

    import uvicorn

    from app.main import create_app
    from app.settings import Settings

    given = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    settings = Settings(config=config).model_copy(update=given)
    service = create_app(settings)
    # Modules and routes stay until the end: the collector need not look at them with every few hundred events.
    gc.freeze()
    uvicorn.run(service, host=settings.host, port=settings.port, log_level=settings.log_level)

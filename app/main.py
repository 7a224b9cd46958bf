"""The service, put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from app.catalog import Catalog, PipelineSource
from app.engine import Engine
from app.errors import install_error_handlers
from app.impressions import ImpressionLog
from app.metrics import Metrics
from app.observation import Observation
from app.routes import catalog, events, operations, rerank, search
from app.service import Service
from app.settings import Settings
from index.clicklog.store import open_click_log

WEB = Path(__file__).parent / "web"


def create_app(settings: Settings | None = None, pipelines: PipelineSource | None = None) -> FastAPI:
    """Build the service; ``uvicorn --factory app.main:create_app`` calls this.

    It answers at once: pipelines are opened in the background, `/ready` says when they are.

    Parameters
    ----------
    settings
        From the environment when not given.
    pipelines
        From the file that `settings` names when not given.

    Returns
    -------
    FastAPI
        An ASGI application.

    Raises
    ------
    ConfigError
        If the configuration or the click log's URL cannot be used.
    """
    settings = settings or Settings()
    closing = contextlib.ExitStack()
    if pipelines is None:
        from index.pipelines import load_pipelines

        pipelines = closing.enter_context(contextlib.closing(load_pipelines(settings.config)))
    service = _assemble(settings, pipelines)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        background: list[asyncio.Task[None]] = [asyncio.create_task(service.catalog.keep_fresh())]
        if settings.click_log_retention_days is not None:
            expiry = service.impressions.keep_expiring(settings.click_log_retention_days)
            background.append(asyncio.create_task(expiry))
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.to_thread(service.engine.close)
            await asyncio.to_thread(closing.close)
            await asyncio.to_thread(service.impressions.close)
            await asyncio.gather(*background, return_exceptions=True)

    fastapi = FastAPI(
        title="Shortlist",
        summary="A query and a pile of candidates go in, a short list in the right order comes out.",
        version=version("shortlist-rank"),
        lifespan=lifespan,
    )
    fastapi.state.service = service
    fastapi.add_middleware(Observation, metrics=service.metrics)
    install_error_handlers(fastapi)
    for routes in (search, events, rerank, catalog, operations):
        fastapi.include_router(routes.router)
    fastapi.mount("/web", StaticFiles(directory=WEB), name="web")

    @fastapi.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    return fastapi


def _assemble(settings: Settings, pipelines: PipelineSource) -> Service:
    metrics = Metrics()
    engine = Engine(
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        max_batch_wait_s=settings.max_batch_wait_ms / 1000,
        timeout_s=settings.request_timeout_s,
        on_batch=metrics.on_batch,
    )
    metrics.observe_queue(lambda: engine.queue_tokens)
    return Service(
        settings=settings,
        engine=engine,
        catalog=Catalog(
            pipelines,
            engine,
            refresh_interval_s=settings.refresh_interval_s,
            golden_interval_s=settings.golden_interval_s,
        ),
        impressions=ImpressionLog(
            open_click_log(settings.click_log_url),
            salt=settings.click_log_salt.get_secret_value() if settings.click_log_salt else None,
            timeout_s=settings.click_log_timeout_s,
            report_timeout_s=settings.request_timeout_s,
        ),
        metrics=metrics,
    )

"""What a running service consists of, for routes to use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.catalog import Catalog
from app.engine import Engine
from app.impressions import ImpressionLog
from app.metrics import Metrics
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """The parts, made once in `app.main.create_app`."""

    settings: Settings
    engine: Engine
    catalog: Catalog
    impressions: ImpressionLog
    metrics: Metrics


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


InService = Annotated[Service, Depends(_service)]
"""A parameter that is the running service."""

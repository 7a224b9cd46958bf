"""An id and a stop-watch for every request."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import REQUEST_ID_HEADER
from app.metrics import Metrics

_USABLE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observation:
    """Middleware that takes the request's id over or gives it one, and counts the answer.

    Plain ASGI: `starlette.middleware.base.BaseHTTPMiddleware` would hide that a client has gone.

    Parameters
    ----------
    service
        What answers.
    metrics
        What counts.
    """

    def __init__(self, service: ASGIApp, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._service(scope, receive, send)
            return
        request_id = _incoming_id(scope) or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                name = REQUEST_ID_HEADER.encode()
                others = [header for header in message.get("headers", []) if header[0] != name]
                message = {**message, "headers": [*others, (name, request_id.encode())]}
            await send(message)

        try:
            await self._service(scope, receive, send_with_id)
        finally:
            method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
            self._metrics.on_request(_route(scope), method, status, time.perf_counter() - started)


def _incoming_id(scope: Scope) -> str | None:
    name = REQUEST_ID_HEADER.encode()
    value = next((value for key, value in scope["headers"] if key == name), b"")
    return value.decode() if _USABLE_ID.fullmatch(value) else None


def _route(scope: Scope) -> str:
    """Path of the route as declared, so that the number of labels is bounded."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "")) or "unmatched"

"""How errors look over HTTP. The only place that knows both the error tree and status codes."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.wire.events import EVENT_TYPES
from app.wire.forms import FORMS
from rankers.errors import (
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    ShortlistError,
    TooLargeError,
)

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
STATUS_CLIENT_GONE = 499
SHOWN_CHARS = 60
"""A wrong value is shown up to this length."""
SHOWN_ERRORS = 5

STATUSES: tuple[tuple[type[ShortlistError], int, str], ...] = (
    (TooLargeError, 413, "Validation"),
    (InvalidInputError, 422, "Validation"),
    (NotFoundError, 404, "NotFound"),
    (OverloadedError, 429, "Overloaded"),
    (DeadlineError, 504, "Timeout"),
    (NotReadyError, 503, "Unhealthy"),
    (ShortlistError, 500, "Backend"),
)
"""Error class, status, `error_type`; the first class that fits counts."""
HTTP_TYPES = {400: "Validation", 401: "Unauthorized", 404: "NotFound", 405: "MethodNotAllowed"}


class ErrorBody(BaseModel):
    """The one shape of every error. Clients look for the text in different fields, so it is in all of them."""

    message: str
    detail: str
    error: str
    error_type: str
    request_id: str


class ClientGone(Exception):  # noqa: N818 - nothing went wrong here
    """The client closed its connection before it was answered."""


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body is not JSON."},
    401: {"model": ErrorBody, "description": "An API key is needed, and none or a wrong one was sent."},
    404: {"model": ErrorBody, "description": "No such model, pipeline or impression; the message lists what there is."},
    413: {"model": ErrorBody, "description": "Over a limit, which the message names."},
    422: {"model": ErrorBody, "description": "A field is wrong; the message names it, its value and what is allowed."},
    429: {"model": ErrorBody, "description": "The queue is full; `Retry-After` says when to come back."},
    503: {"model": ErrorBody, "description": "Nothing is live yet."},
    504: {"model": ErrorBody, "description": "The request took too long."},
}
"""For the `responses` of routers."""


def request_id(request: Request) -> str:
    """Give the id that `app.observation` gave the request."""
    return str(getattr(request.state, "request_id", ""))


def install_error_handlers(service: FastAPI) -> None:
    """Register the handlers of every error a request can end in."""
    service.add_exception_handler(ShortlistError, _on_shortlist_error)
    service.add_exception_handler(RequestValidationError, _on_validation_error)
    service.add_exception_handler(HTTPException, _on_http_exception)
    service.add_exception_handler(ClientGone, _on_client_gone)
    service.add_exception_handler(ClientDisconnect, _on_client_gone)
    service.add_exception_handler(Exception, _on_unforeseen)


def _reply(
    request: Request, status: int, error_type: str, message: str, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = ErrorBody(
        message=message, detail=message, error=message, error_type=error_type, request_id=request_id(request)
    )
    return JSONResponse(body.model_dump(), status, headers={**(headers or {}), REQUEST_ID_HEADER: request_id(request)})


async def _on_shortlist_error(request: Request, error: Exception) -> Response:
    status, error_type = next((status, name) for kind, status, name in STATUSES if isinstance(error, kind))
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if status == 500:
        logger.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    return _reply(request, status, error_type, str(error), headers=headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    details = error.errors() if isinstance(error, RequestValidationError) else ()
    shown = [describe_validation_error(detail) for detail in details[:SHOWN_ERRORS]]
    if len(details) > SHOWN_ERRORS:
        shown.append(f"and {len(details) - SHOWN_ERRORS} more")
    return _reply(request, 422, "Validation", "; ".join(shown))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status, message, headers = 500, str(error), None
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, error.detail, error.headers
    if status == 404:
        message = f"there is no {request.url.path}; /docs lists what there is"
    elif status == 405:
        allowed = (headers or {}).get("Allow", "another method")
        message = f"{request.url.path} does not take {request.method}; use {allowed}"
    return _reply(request, status, HTTP_TYPES.get(status, "Backend"), message, headers=headers)


async def _on_client_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=STATUS_CLIENT_GONE)


async def _on_unforeseen(request: Request, _error: Exception) -> Response:
    return _reply(request, 500, "Backend", "something went wrong that should not; the service's log has the details")


def describe_validation_error(detail: Mapping[str, Any]) -> str:
    """Say which field is wrong, with its value and what is allowed.

    Parameters
    ----------
    detail
        One entry of pydantic's ``errors()``, with FastAPI's source of the value first in ``loc``.

    Returns
    -------
    str
        One sentence.

    Examples
    --------
    >>> at_least_one = "Input should be greater than or equal to 1"
    >>> describe_validation_error({"loc": ("body", "top_n"), "type": "x", "input": 0, "msg": at_least_one})
    'top_n is 0: Input should be greater than or equal to 1'
    >>> describe_validation_error({"loc": ("body", "query"), "type": "missing", "input": {}, "msg": "Field required"})
    'query is missing: Field required'
    """
    source, *path = detail["loc"]
    if path and path[0] in FORMS:
        path = path[1:]
    elif path[:1] == ["events"] and len(path) > 2 and path[2] in EVENT_TYPES:
        del path[2]
    name = ".".join(map(str, path)) or f"the {source}"
    value = "missing" if detail["type"] == "missing" else _shown(detail["input"])
    return f"{name} is {value}: {detail['msg']}"


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        text = str(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"

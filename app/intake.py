"""How a request is taken in: its key, its size, its JSON; and noticing that whoever sent it has gone."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Coroutine, Mapping, MutableMapping, Sequence
from email.message import Message
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import SecretStr
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.types import Receive

from app.errors import ClientGone
from app.settings import Settings
from rankers.errors import TooLargeError

T = TypeVar("T")

KEY_HEADERS = ("api-key", "x-api-key")


class JsonRequest(Request):
    """A request whose body has been read and parsed."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, *, raw: bytes, content: object) -> None:
        super().__init__(scope, receive)
        self._raw = raw
        self._content = content

    async def body(self) -> bytes:
        """The body as it came."""
        return self._raw

    async def json(self) -> object:
        """The body, parsed."""
        return self._content


class ServiceRoute(APIRoute):
    """A route that asks for a key where keys are set, and reads JSON bodies up to the limit, strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler; called once per route."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def checked(request: Request) -> Response:
            settings: Settings = request.app.state.service.settings
            require_key(request.headers, settings.api_keys)
            if takes_body:
                _require_json_type(request)
                raw = await _read_body(request, limit=settings.max_request_bytes)
                request = JsonRequest(request.scope, request.receive, raw=raw, content=_parse(raw))
            return await handle(request)

        return checked


def require_key(headers: Mapping[str, str], keys: Sequence[SecretStr]) -> None:
    """Let a request pass only with one of the keys; without keys, all pass.

    Parameters
    ----------
    headers
        Of the request; ``Authorization: Bearer KEY``, ``Api-Key: KEY`` or ``X-API-Key: KEY``.
    keys
        Any of them will do.

    Raises
    ------
    HTTPException
        401 if there is no key, or a wrong one.
    """
    if not keys:
        return
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = [token.strip() if scheme.lower() == "bearer" else "", *(headers.get(name, "") for name in KEY_HEADERS)]
    # Every pair is compared, so that the time taken says nothing about any key.
    matches = [
        hmac.compare_digest(candidate.encode(), key.get_secret_value().encode()) for candidate in given for key in keys
    ]
    if not any(matches):
        problem = "the API key sent is not valid" if any(given) else "no API key was sent"
        raise HTTPException(
            401,
            f"{problem}; send 'Authorization: Bearer KEY', 'Api-Key: KEY' or 'X-API-Key: KEY'",
            headers={"WWW-Authenticate": "Bearer"},
        )


def require_short_query(query: str, settings: Settings) -> None:
    """Refuse a query over the limit; a document would be cut, but a cut query asks something else."""
    if len(query) > settings.max_query_chars:
        raise TooLargeError(
            f"query has {len(query)} characters, the limit is {settings.max_query_chars}; shorten it", field="query"
        )


def _require_json_type(request: Request) -> None:
    """Refuse other content types: a browser sends those to foreign sites without asking."""
    value = request.headers.get("content-type", "")
    message = Message()
    message["content-type"] = value
    subtype = message.get_content_subtype()
    if message.get_content_maintype() != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise HTTPException(400, f"content-type is {value!r}, must be application/json")


async def _read_body(request: Request, *, limit: int) -> bytes:
    chunks: list[bytes] = []
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received <= limit:
            chunks.append(chunk)
        elif received > 2 * limit:
            break
    # A little above the limit is read and thrown away: a client that is cut off while it sends never sees the answer.
    if received > limit:
        raise TooLargeError(f"the body has over {limit} bytes, which is the limit; send fewer documents", field="body")
    return b"".join(chunks)


def _parse(raw: bytes) -> object:
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(
            400, f"the body is not JSON: {error}" if raw else "the body is empty, must be JSON"
        ) from None


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await work for a client, and cancel it when the client goes away.

    Parameters
    ----------
    request
        Its body has been read.
    work
        What the client waits for.

    Returns
    -------
    T
        What `work` gives.

    Raises
    ------
    ClientGone
        If the connection closed first.
    """
    task = asyncio.ensure_future(work)
    departure = asyncio.ensure_future(_departure(request.receive))
    try:
        await asyncio.wait({task, departure}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        departure.cancel()
        await asyncio.gather(task, departure, return_exceptions=True)


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

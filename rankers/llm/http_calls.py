"""Calls of a JSON API that may be busy, slow or gone for a moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Executor, Future, wait
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar

import httpx

from rankers.errors import ConfigError, PartialFailureError, WorkerError

LONGEST_WAIT_S = 30.0
"""However long a server asks to wait."""

_BODY_SHOWN = 200

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class JsonCalls:
    """POSTs JSON objects and returns JSON objects; may be used by many threads at once.

    Parameters
    ----------
    base_url
        ``http://host:port/v1``; a user and password in it are sent as basic authentication.
    api_key
        Sent as a bearer token; never part of a message or a log.
    timeout_s
        Longest wait for the server to accept, to read and to go on answering, in seconds.
    attempts
        Attempts per call, at least 1.
    first_wait_s
        Longest wait after the first attempt, in seconds; see `wait_s`.

    Raises
    ------
    ConfigError
        If the URL or the key cannot be used, or there is no attempt.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        attempts: int = 4,
        first_wait_s: float = 0.5,
    ) -> None:
        url, auth = _split_url(base_url)
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ConfigError(
                "the API key has a space or a character that a header cannot carry; check how it was read"
            )
        if api_key and auth:
            raise ConfigError(f"{url} has a user in it and an API key beside it; give one of them")
        if attempts < 1:
            raise ConfigError(f"attempts is {attempts}; a call takes at least 1")
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._url = str(url).rstrip("/")
        self._secret = api_key or (auth[1] if auth else "")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            auth=auth,
            timeout=timeout_s,
            # Callers bound how many calls are in flight.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON object, again where that may help.

        Parameters
        ----------
        path
            Below the base URL: ``/completions``.
        body
            What to send.

        Returns
        -------
        dict
            What came back.

        Raises
        ------
        WorkerError
            If the server refuses (4xx but 429), still fails at the last attempt (429, 5xx, no connection, no answer in
            time), or answers with something else than a JSON object.
        """
        url = f"{self._url}/{path.lstrip('/')}"
        failure, cause = "", None
        for attempt in range(self._attempts):
            retry_after = ""
            try:
                reply = self._client.post(url, json=body)
            except httpx.RequestError as error:
                failure, cause = self.shown(f"{type(error).__name__}: {error}".rstrip(": ")), error
            else:
                if reply.is_success:
                    return self._object(reply, url)
                failure, cause = f"status {reply.status_code}: {self.shown(reply.text)}", None
                if reply.status_code != httpx.codes.TOO_MANY_REQUESTS and not reply.is_server_error:
                    raise WorkerError(f"POST {url} was refused with {failure}")
                retry_after = reply.headers.get("Retry-After", "")
            if attempt + 1 < self._attempts:
                time.sleep(wait_s(attempt, first_wait_s=self._first_wait_s, retry_after=retry_after))
        raise WorkerError(f"POST {url} failed {self._attempts} times, last with {failure}") from cause

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _object(self, reply: httpx.Response, url: str) -> dict[str, Any]:
        try:
            found = reply.json()
        except ValueError as error:
            raise WorkerError(f"POST {url} was answered with invalid JSON: {self.shown(reply.text)}") from error
        if not isinstance(found, dict):
            raise WorkerError(f"POST {url} was answered with {self.shown(reply.text)} instead of a JSON object")
        return found

    def shown(self, text: str) -> str:
        """Shorten what a server said to what a message may have of it: without the secret that some servers repeat."""
        return (text.replace(self._secret, "***") if self._secret else text)[:_BODY_SHOWN]


def call_each(threads: Executor, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Call a function for each item at the same time; the first failure cancels what has not begun.

    Parameters
    ----------
    threads
        They bound how many calls are under way.
    function
        Raises `WorkerError` where it fails.
    items
        Any number.

    Returns
    -------
    list
        What each call gave, in the order of the items.

    Raises
    ------
    PartialFailureError
        If a call failed, once all that had begun have ended.
    """
    calls: list[Future[_Result]] = []
    try:
        calls.extend(threads.submit(function, item) for item in items)
        wait(calls, return_when=FIRST_EXCEPTION)
    finally:
        for call in calls:
            call.cancel()
    results: dict[int, _Result] = {}
    errors: dict[int, WorkerError] = {}
    for i, call in enumerate(calls):
        try:
            results[i] = call.result()
        except WorkerError as error:
            errors[i] = error
        except CancelledError:
            continue
    if errors:
        raise PartialFailureError(results, errors) from errors[min(errors)]
    return list(results.values())


def wait_s(attempt: int, *, first_wait_s: float, retry_after: str = "") -> float:
    """Seconds between an attempt that failed and the next.

    ``min(30, max(u * first_wait_s * 2 ** attempt, retry_after))`` with u drawn from [1/2, 1], so that callers who
    failed together do not come back together.

    Parameters
    ----------
    attempt
        Counted from 0.
    first_wait_s
        Longest wait after the first attempt, in seconds.
    retry_after
        The header of that name: a number of seconds, a date, or nothing.

    Returns
    -------
    float
        In seconds.

    Examples
    --------
    >>> wait_s(0, first_wait_s=0.5, retry_after="7")
    7.0
    >>> wait_s(0, first_wait_s=0.5, retry_after="3600")
    30.0
    """
    own: float = random.uniform(0.5, 1.0) * first_wait_s * 2**attempt
    return min(LONGEST_WAIT_S, max(own, _retry_after_s(retry_after)))


def _split_url(base_url: str) -> tuple[httpx.URL, tuple[str, str] | None]:
    """Take user and password out of a URL, since httpx logs URLs."""
    try:
        parsed = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"the URL of the server cannot be read: {error}") from error
    auth = (parsed.username, parsed.password) if parsed.userinfo else None
    url = parsed.copy_with(userinfo=b"")
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise ConfigError(
            f"{url.copy_with(query=None, fragment=None)} is not the URL of a server: it must begin with http:// or "
            "https://, name a host and end in the path, as in http://localhost:8000/v1"
        )
    return url, auth


def _retry_after_s(said: str) -> float:
    if said.isdecimal():
        return float(said)
    try:
        return parsedate_to_datetime(said).timestamp() - time.time()
    except ValueError:
        return 0.0

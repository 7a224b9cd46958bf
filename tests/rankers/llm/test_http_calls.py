"""Calls come through where trying again helps, and say plainly why they do not where it does not."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import ConfigError, PartialFailureError, WorkerError
from rankers.llm.http_calls import LONGEST_WAIT_S, JsonCalls, call_each, wait_s
from tests.rankers.llm.fake_server import Body, Cut, FakeServer, Fault, Hang, Status

PATH = "/chat/completions"
KEY = "sk-a-secret"


def calls(server: FakeServer, *, attempts: int = 3, timeout_s: float = 30.0, api_key: str | None = None) -> JsonCalls:
    return JsonCalls(server.url, api_key=api_key, timeout_s=timeout_s, attempts=attempts, first_wait_s=0.001)


def text_of(reply: dict[str, object]) -> str:
    choices = json.loads(json.dumps(reply["choices"]))
    return str(choices[0]["message"]["content"])


def test_a_call_sends_the_body_and_the_key_and_gives_the_reply() -> None:
    with FakeServer(answers=["yes"]) as server, calls(server, api_key=KEY) as client:
        assert text_of(client.post(PATH, {"model": "m", "messages": ["é"]})) == "yes"
    (request,) = server.received
    assert request.path == "/v1/chat/completions"
    assert request.body == {"model": "m", "messages": ["é"]}
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent() -> None:
    with FakeServer(answers=["yes"]) as server, calls(server) as client:
        client.post(PATH, {})
    assert "authorization" not in server.received[0].headers


@pytest.mark.parametrize("fault", [Status(429), Status(500), Status(503), Cut()])
def test_failures_that_pass_are_tried_again_with_the_same_body(fault: Fault) -> None:
    with FakeServer(faults=[fault, fault], answers=["yes"]) as server, calls(server, attempts=3) as client:
        assert text_of(client.post(PATH, {"n": 1})) == "yes"
    assert server.bodies == [{"n": 1}] * 3


def test_a_server_that_does_not_answer_in_time_is_asked_again() -> None:
    with (
        FakeServer(faults=[Hang()], answers=lambda _: "yes") as server,
        calls(server, attempts=9, timeout_s=0.2) as client,
    ):
        assert text_of(client.post(PATH, {})) == "yes"
    assert len(server.received) >= 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Status(503, body="warming up"), "status 503: warming up"),
        (Status(429, body="too fast"), "status 429: too fast"),
        (Cut(), "RemoteProtocolError"),
    ],
)
def test_attempts_are_bounded_and_the_last_failure_is_told(fault: Fault, said: str) -> None:
    with FakeServer(faults=[fault] * 5) as server, calls(server, attempts=2) as client:
        with pytest.raises(WorkerError) as caught:
            client.post(PATH, {})
        assert str(caught.value).startswith(f"POST {server.url}{PATH} failed 2 times, last with {said}")
    assert len(server.received) == 2


def test_a_server_that_hangs_is_given_up() -> None:
    with FakeServer(faults=[Hang()] * 2) as server, calls(server, attempts=2, timeout_s=0.1) as client:
        with pytest.raises(WorkerError, match="failed 2 times, last with ReadTimeout") as caught:
            client.post(PATH, {})
        assert isinstance(caught.value.__cause__, httpx.ReadTimeout)


def test_nobody_at_the_address_is_told() -> None:
    with FakeServer() as server:
        url = server.url
    with (
        JsonCalls(url, attempts=2, first_wait_s=0.001) as client,
        pytest.raises(WorkerError, match="failed 2 times, last with ConnectError"),
    ):
        client.post(PATH, {})


@pytest.mark.parametrize("code", [301, 400, 401, 404, 422])
def test_a_refusal_is_not_tried_again_and_shows_the_beginning_of_the_body(code: int) -> None:
    with FakeServer(faults=[Status(code, body="x" * 500)]) as server, calls(server) as client:
        with pytest.raises(WorkerError) as caught:
            client.post(PATH, {})
        assert str(caught.value) == f"POST {server.url}{PATH} was refused with status {code}: {'x' * 200}"
    assert len(server.received) == 1


@pytest.mark.parametrize(("text", "said"), [("<html>", "invalid JSON: <html>"), ("[1]", "instead of a JSON object")])
def test_an_answer_that_is_no_json_object_is_not_tried_again(text: str, said: str) -> None:
    with FakeServer(faults=[Body(text)]) as server, calls(server) as client, pytest.raises(WorkerError, match=said):
        client.post(PATH, {})
    assert len(server.received) == 1


def test_the_server_says_when_to_come_again() -> None:
    with FakeServer(faults=[Status(429, retry_after="1")], answers=["yes"]) as server, calls(server) as client:
        start = time.monotonic()
        client.post(PATH, {})
        assert time.monotonic() - start >= 1.0


@given(attempt=st.integers(0, 12), first_wait_s=st.floats(0, 40), asked_s=st.integers(0, 10_000))
def test_waits_double_up_to_what_is_bearable_and_the_server_may_ask_for_longer_ones(
    attempt: int, first_wait_s: float, asked_s: int
) -> None:
    longest = first_wait_s * 2**attempt
    waited = wait_s(attempt, first_wait_s=first_wait_s)
    assert min(longest / 2, LONGEST_WAIT_S) <= waited <= min(longest, LONGEST_WAIT_S)
    waited = wait_s(attempt, first_wait_s=first_wait_s, retry_after=str(asked_s))
    assert min(max(longest / 2, asked_s), LONGEST_WAIT_S) <= waited <= min(max(longest, asked_s), LONGEST_WAIT_S)


@pytest.mark.parametrize("said", ["soon", "-3", "1.5", "\u00b2", "Wed, 99 Foo 2020", formatdate(0, usegmt=True)])
def test_a_time_to_come_again_that_says_nothing_or_has_passed_is_not_waited_for(said: str) -> None:
    assert wait_s(0, first_wait_s=0.01, retry_after=said) <= 0.01


def test_the_time_to_come_again_may_be_a_date() -> None:
    assert wait_s(0, first_wait_s=0.01, retry_after=formatdate(time.time() + 3600, usegmt=True)) == LONGEST_WAIT_S


@pytest.mark.parametrize(
    "faults",
    [
        [Status(401, body=f"no such key: {KEY}")],
        [Status(500, body=f"key {KEY} failed")] * 3,
        [Body(f"key {KEY}")],
        [Body(json.dumps([KEY]))],
        [Cut()] * 3,
    ],
)
def test_the_key_is_in_no_message_and_no_log(faults: Sequence[Fault], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), FakeServer(faults=faults) as server, calls(server, api_key=KEY) as client:
        with pytest.raises(WorkerError) as caught:
            client.post(PATH, {})
        assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {client!r}"
    assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text


def test_a_user_in_the_url_is_sent_but_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), FakeServer(faults=[Status(403, body="pass-word is wrong")]) as server:
        url = server.url.replace("//", "//me:pass-word@")
        with JsonCalls(url) as client, pytest.raises(WorkerError) as caught:
            client.post(PATH, {})
        assert str(caught.value) == f"POST {server.url}{PATH} was refused with status 403: *** is wrong"
    assert server.received[0].headers["authorization"].startswith("Basic ")
    assert "pass-word" not in caplog.text


def test_many_threads_share_the_connections() -> None:
    together = threading.Barrier(6)
    with (
        FakeServer(answers=lambda body: str(body["n"]), meeting=together) as server,
        calls(server) as client,
        ThreadPoolExecutor(6) as threads,
    ):
        found = list(threads.map(lambda n: text_of(client.post(PATH, {"n": n})), range(24)))
    assert found == [str(n) for n in range(24)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", "must begin with http"),
        ("ftp://host/v1", "must begin with http"),
        ("http:///v1", "name a host"),
        (f"http://host/v1?key={KEY}", "end in the path"),
        ("http://host:port/v1", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_called_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        JsonCalls(url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} {KEY}", f"{KEY}é"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="API key") as caught:
        JsonCalls("http://host/v1", api_key=key)
    assert KEY not in str(caught.value)


def test_two_ways_to_authenticate_and_no_attempt_are_refused() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        JsonCalls("http://me:it@host/v1", api_key=KEY)
    with pytest.raises(ConfigError, match="attempts is 0"):
        JsonCalls("http://host/v1", attempts=0)


def test_a_failure_keeps_what_has_begun_and_cancels_the_rest() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def call(item: int) -> int:
        begun.append(item)
        if item == 1:
            failed.set()
            raise WorkerError("refused")
        # The other thread goes on where the failure is known, and slowly enough to be stopped.
        assert failed.wait(30)
        time.sleep(0.05)
        return 10 * item

    with ThreadPoolExecutor(2) as threads, pytest.raises(PartialFailureError, match=r"^refused$") as caught:
        call_each(threads, call, range(100))
    assert caught.value.results[0] == 0
    assert caught.value.results == {item: 10 * item for item in begun if item != 1}
    assert list(caught.value.errors) == [1]
    assert caught.value.__cause__ is caught.value.errors[1]
    assert len(begun) < 100


def test_what_was_not_foreseen_is_raised_as_it_is() -> None:
    def call(item: int) -> int:
        return 1 // item

    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(ZeroDivisionError):
            call_each(threads, call, [1, 0, 1])
        assert call_each(threads, call, [1, 1]) == [1, 1]
        assert call_each(threads, call, []) == []

"""A server of the OpenAI protocol in this process: completions by a real tiny model, chat answers from a script."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import torch

from tests.rankers.models import byte_tokenizer

Json = dict[str, Any]

MASKED = -9999.0
"""What vLLM writes for a log-probability of minus infinity, which JSON cannot."""


@dataclass(frozen=True, slots=True)
class Status:
    """Answers with a status."""

    code: int
    retry_after: str = ""
    body: str = '{"error": {"message": "no luck"}}'


@dataclass(frozen=True, slots=True)
class Body:
    """Answers with status 200 and this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Cut:
    """Closes the connection without an answer."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Does not answer before the server is closed."""


Fault = Status | Body | Cut | Hang


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came; names of headers are in lower case."""

    path: str
    body: Json
    headers: dict[str, str] = field(repr=False)


class FakeServer:
    """Serves ``/v1/completions`` and ``/v1/chat/completions`` on a free port while it is entered.

    Parameters
    ----------
    network
        Computes completions; none are served without one.
    tokenizer
        Writes them; `byte_tokenizer` when not given.
    raw
        Whether log-probabilities are those before the mask of allowed tokens, as vLLM gives them by default.
    dropped
        Token that is left out of all log-probabilities.
    masked
        Token that cannot be written although it is allowed, as one outside the top k.
    max_logprobs
        Most log-probabilities that may be asked for.
    context_tokens
        Longest prompt and completion together.
    faults
        What the first requests get instead of an answer, one each.
    answers
        What the chat says: one text per request in the order of the requests, or a function of the request. A dict is
        sent as the whole reply.
    meeting
        Where every request waits for others before it is answered.
    """

    def __init__(
        self,
        network: Any = None,
        *,
        tokenizer: Any = None,
        raw: bool = False,
        dropped: int | None = None,
        masked: int | None = None,
        max_logprobs: int = 64,
        context_tokens: int = 512,
        faults: Sequence[Fault] = (),
        answers: Sequence[str | Json] | Callable[[Json], str | Json] = (),
        meeting: threading.Barrier | None = None,
    ) -> None:
        self.received: list[Received] = []
        self._network = network
        self._tokenizer = tokenizer or byte_tokenizer()
        self._raw = raw
        self._dropped = dropped
        self._masked = masked
        self._max_logprobs = max_logprobs
        self._context_tokens = context_tokens
        self._faults = list(faults)
        self._answers = answers if callable(answers) else list(answers)
        self._meeting = meeting
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """Base URL, up to the version."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def bodies(self) -> list[Json]:
        """What was asked, in the order in which it came."""
        return [request.body for request in self.received]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Otherwise the header waits for the acknowledgement of what was sent before it.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = fake._record(self.path, body, {name.lower(): value for name, value in self.headers.items()})
                if fake._meeting is not None:
                    fake._meeting.wait(timeout=30)
                match fault:
                    case None:
                        status, reply = fake._reply(self.path, body)
                        self._send(status, json.dumps(reply))
                    case Status():
                        self._send(fault.code, fault.body, retry_after=fault.retry_after)
                    case Body():
                        self._send(200, fault.text)
                    case Hang():
                        fake._closed.wait()
                        self.close_connection = True
                    case Cut():
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)

            def _send(self, status: int, text: str, *, retry_after: str = "") -> None:
                content = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if retry_after:
                    self.send_header("Retry-After", retry_after)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler

    def _record(self, path: str, body: Json, headers: dict[str, str]) -> Fault | None:
        with self._lock:
            self.received.append(Received(path, body, headers))
            return self._faults.pop(0) if self._faults else None

    def _reply(self, path: str, body: Json) -> tuple[int, Json]:
        if path == "/v1/chat/completions":
            return self._chat(body)
        if path == "/v1/completions" and self._network is not None:
            return self._complete(body)
        return 404, _error(404, f"nothing at {path}")

    def _chat(self, body: Json) -> tuple[int, Json]:
        if callable(self._answers):
            answer = self._answers(body)
        else:
            with self._lock:
                if not self._answers:
                    return 400, _error(400, "the script of this server has ended")
                answer = self._answers.pop(0)
        if isinstance(answer, dict):
            return 200, answer
        message = {"role": "assistant", "content": answer}
        tokens = len(answer.split())
        return 200, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": body.get("model"),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens},
        }

    def _complete(self, body: Json) -> tuple[int, Json]:
        prompt, budget, wanted = list(body["prompt"]), int(body.get("max_tokens", 16)), body.get("logprobs")
        if len(prompt) + budget > self._context_tokens:
            return 400, _error(400, f"This model's maximum context length is {self._context_tokens} tokens.")
        if wanted is not None and wanted > self._max_logprobs:
            allowed = self._max_logprobs
            return 400, _error(
                400, f"Requested sample logprobs of {wanted}, which is greater than max allowed: {allowed}"
            )
        written: list[int] = []
        tops: list[dict[str, float]] = []
        text, finish = "", "length"
        while len(written) < budget and finish == "length":
            raw, processed = self._log_probabilities([*prompt, *written], body)
            token = int(processed.argmax())
            written.append(token)
            tops.append(self._top(raw if self._raw else processed, token, wanted or 0, body))
            text = self._text(written)
            ends = [(text.find(mark), mark) for mark in body.get("stop", ()) if mark in text]
            if ends:
                start, mark = min(ends)
                text = text[: start + (len(mark) if body.get("include_stop_str_in_output") else 0)]
            if ends or token == self._tokenizer.eos_token_id:
                finish = "stop"
        logprobs = None if wanted is None else {"tokens": [], "token_logprobs": [], "top_logprobs": tops}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(written)}
        return 200, {
            "id": "cmpl-1",
            "object": "text_completion",
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "text": text,
                    "logprobs": logprobs,
                    "finish_reason": finish,
                    "prompt_logprobs": self._prompt_log_probabilities(prompt) if "prompt_logprobs" in body else None,
                }
            ],
            "usage": usage | {"total_tokens": len(prompt) + len(written)},
        }

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @torch.inference_mode()
    def _log_probabilities(self, ids: list[int], body: Json) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the log-probabilities of the vocabulary before and after the mask of allowed tokens."""
        logits = self._network(torch.tensor([ids])).logits[0, -1].float()
        mask = torch.zeros_like(logits)
        if "allowed_token_ids" in body:
            mask = torch.full_like(logits, -torch.inf)
            mask[body["allowed_token_ids"]] = 0.0
        if self._masked is not None:
            mask[self._masked] = -torch.inf
        return logits.log_softmax(-1), (logits + mask).log_softmax(-1)

    @torch.inference_mode()
    def _prompt_log_probabilities(self, prompt: list[int]) -> list[dict[str, Json] | None]:
        """Give what vLLM gives for ``prompt_logprobs: 0``: of each token itself, nothing for the first."""
        values = self._network(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
        places: list[dict[str, Json] | None] = [None]
        for at, token in zip(values, prompt[1:], strict=False):
            rank = int((at > at[token]).sum()) + 1
            entry = {"logprob": max(float(at[token]), MASKED), "rank": rank, "decoded_token": self._text([token])}
            places.append({str(token): entry})
        return places

    def _top(self, values: torch.Tensor, token: int, count: int, body: Json) -> dict[str, float]:
        # The token that was written is always among them, even beyond the count.
        tokens = dict.fromkeys([token, *values.topk(count).indices.tolist()])
        as_ids = body.get("return_tokens_as_token_ids", False)
        return {
            f"token_id:{i}" if as_ids else self._text([i]): max(float(values[i]), MASKED)
            for i in tokens
            if i != self._dropped
        }


def _error(code: int, message: str) -> Json:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}}

"""Written answers from a hosted chat API of the OpenAI protocol, whose tokenizer and chat template nobody here has.

Prompts are built from token ids everywhere else, so that text of users is never read as part of the conversation. Here
a token is a piece of text and its id is the piece itself, as a number: ids put together are text put together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self

from rankers.errors import ConfigError, InvalidInputError, WorkerError
from rankers.llm.http_calls import JsonCalls, call_each
from rankers.protocols import Generation, TokenIds

LONGEST_PIECE = 16
"""Letters of a word in one token, so that a budget of tokens bounds a text without spaces."""

# Begin the turns of a conversation; rankers.listwise.prompt has its placeholders in the same private-use area.
_SYSTEM, _USER, _ANSWER = "\ue010", "\ue011", "\ue012"
_CONVERSATION = re.compile(
    f"{_SYSTEM}([^{_SYSTEM}-{_ANSWER}]*){_USER}([^{_SYSTEM}-{_ANSWER}]*){_ANSWER}([^{_SYSTEM}-{_ANSWER}]*)"
)
_MARKER = re.compile(f"[{_SYSTEM}-{_ANSWER}]")
# Never nothing: "[", a marker and "1]" must not become the label "[1]".
_REPLACEMENT = "\ufffd"
# Half of a character, which JSON can carry into a text and UTF-8 cannot carry out of it.
_SURROGATE = re.compile("[\ud800-\udfff]")
# Scripts that put no space between words: one token per character, about what tokenizers make of them.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf" ?[^\W\d{_UNSPACED}]{{1,{LONGEST_PIECE}}}|.", re.DOTALL)


def encode_pieces(text: str) -> list[int]:
    """Cut a text into pieces, each a number from which it can be read.

    A piece is a word with the space before it, of at most `LONGEST_PIECE` letters, or any other character; each digit
    is one, as in many a tokenizer, so that a budget for numbers is not too small. Its id is the number that the byte 1
    and the piece in UTF-8 make, the first byte the highest.

    Parameters
    ----------
    text
        Any; half of a character (a lone surrogate) becomes U+FFFD.

    Returns
    -------
    list of int
        One id per piece.

    Examples
    --------
    >>> [f"{token:x}" for token in encode_pieces("[B] a")]  # 5b is "[", 42 is "B"
    ['15b', '142', '15d', '12061']
    """
    pieces = _PIECE.findall(_SURROGATE.sub(_REPLACEMENT, text))
    return [int.from_bytes(b"\x01" + piece.encode()) for piece in pieces]


def decode_pieces(ids: TokenIds) -> str:
    """Put together the text that ids stand for.

    Parameters
    ----------
    ids
        From `encode_pieces`, of one text or of several.

    Returns
    -------
    str
        The text.

    Raises
    ------
    InvalidInputError
        If an id stands for no text.

    Examples
    --------
    >>> decode_pieces(encode_pieces("Grüße, ") + encode_pieces("Welt"))
    'Grüße, Welt'
    """
    pieces = []
    for token in ids:
        number = int(token)
        content = number.to_bytes(max(number.bit_length() + 7, 8) // 8) if number >= 0 else b""
        try:
            if content[:1] != b"\x01":
                raise InvalidInputError(f"{number} is no token of a chat engine; encode the text with the engine")
            pieces.append(content[1:].decode())
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"token {number} stands for no text; encode the text with the engine") from error
    return "".join(pieces)


class ChatEngine:
    """A model behind ``POST {url}/chat/completions`` that answers conversations and shows no logits.

    It is a `GenerativeModel` of `rankers.protocols`, for the readers of written answers, and safe for concurrent calls.
    Tokens of a prompt are those of `encode_pieces`, in English about as many as a real tokenizer gives. What becomes of
    special tokens that users write is up to the server.

    Parameters
    ----------
    url
        Base URL up to the version, ``https://host/v1``.
    model
        Name under which the server has the model.
    api_key
        Sent as a bearer token.
    timeout_s
        Longest wait for an answer, in seconds.
    max_in_flight
        Most requests at once, over all calls.
    context_tokens
        Longest prompt and answer together, in tokens of `encode_pieces`; not checked here when not given.
    prefill
        Whether the model is to continue what the answer begins with, sent as the assistant's turn with the fields
        ``continue_final_message`` and ``add_generation_prompt`` of vLLM and SGLang. Most hosted models cannot: without,
        the beginning is not sent, and the readers take an answer with it and without it.
    budget_field
        Name of the field that bounds an answer: ``max_completion_tokens`` is the one of the protocol and counts hidden
        reasoning; servers that do not know it yet take ``max_tokens``.
    extra
        Fields added to every request, such as ``{"reasoning_effort": "low"}``. One that is None is left out:
        ``{"temperature": None}`` for models that refuse the temperature 0.

    Raises
    ------
    ConfigError
        If the URL or the key cannot be used, or nothing may be in flight.
    """

    max_batch_tokens = 65_536

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 8,
        context_tokens: int | None = None,
        prefill: bool = False,
        budget_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if max_in_flight < 1:
            raise ConfigError(f"max_in_flight is {max_in_flight}, must be at least 1")
        self.name = model
        self.context_tokens = context_tokens
        self._prefill = prefill
        self._budget_field = budget_field
        self._extra = dict(extra or {})
        self._calls = JsonCalls(url, api_key=api_key, timeout_s=timeout_s)
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="chat")

    def encode(self, text: str) -> list[int]:
        """Token ids of user text inside a prompt; what begins a turn is replaced by U+FFFD."""
        return encode_pieces(_MARKER.sub(_REPLACEMENT, text))

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:  # noqa: ARG002
        """Token ids of trusted template text; where turns begin is recognised."""
        return encode_pieces(text)

    def chat_text(self, system: str, user: str) -> str:
        """Write a conversation for `generate` to take apart, up to where the answer begins."""
        system, user = (_MARKER.sub(_REPLACEMENT, text) for text in (system, user))
        return f"{_SYSTEM}{system}{_USER}{user}{_ANSWER}"

    def generate(
        self, prompts: Sequence[TokenIds], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[Generation]:
        """Let the model answer each conversation, at temperature 0.

        Parameters
        ----------
        prompts
            Encoded conversations, each as `chat_text` writes it, with what the answer begins with after it.
        max_new_tokens
            Budget for each, in tokens of the server.
        stop
            Strings that end the text; the one that did is part of it only where the server names it (``stop_reason``).

        Returns
        -------
        list of Generation
            One per prompt. Reasoning that the server gives apart stands before the text as ``<think>...</think>``, the
            closing tag only where there is a text. Where the server does not count tokens, those of `encode_pieces`
            are counted.

        Raises
        ------
        InvalidInputError
            If a prompt is no conversation, or leaves no room for `max_new_tokens` in the context.
        PartialFailureError
            If the server does not answer, the model refuses, or the answer is empty; it has the other answers.
        """
        bodies = []
        for i, prompt in enumerate(prompts):
            if self.context_tokens is not None and len(prompt) + max_new_tokens > self.context_tokens:
                raise InvalidInputError(
                    f"prompt {i} has {len(prompt)} tokens and may write {max_new_tokens}, the context of {self.name} "
                    f"is {self.context_tokens}; show fewer or shorter passages at a time"
                )
            bodies.append(self._body(decode_pieces(prompt), max_new_tokens, stop))
        return call_each(self._threads, self._ask, bodies)

    def close(self) -> None:
        """Close the connections; calls under way are finished first."""
        self._threads.shutdown()
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _body(self, text: str, budget: int, stop: Sequence[str]) -> dict[str, Any]:
        turns = _CONVERSATION.fullmatch(text)
        if turns is None:
            raise InvalidInputError(
                f"the prompt {text[:40]!r} is no conversation; begin it with what chat_text() of the engine gives"
            )
        system, user, answer = turns.groups()
        messages = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body: dict[str, Any] = {"model": self.name, "messages": messages, "temperature": 0, self._budget_field: budget}
        if stop:
            body["stop"] = list(stop)
        if self._prefill and answer:
            messages.append({"role": "assistant", "content": answer})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return {field: value for field, value in (body | self._extra).items() if value is not None}

    def _ask(self, body: dict[str, Any]) -> Generation:
        reply = self._calls.post("/chat/completions", body)
        try:
            choice = reply["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content") or "", message.get("refusal")
            reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
            finish, stopped_by = choice.get("finish_reason"), choice.get("stop_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise WorkerError(
                f"{self.name}: the reply has no choices with a message{self._said(reply)}; is this a chat server of "
                "the OpenAI protocol?"
            ) from error
        if refusal or finish == "content_filter":
            why = (
                f"refused to answer: {self._calls.shown(str(refusal))!r}"
                if refusal
                else "was stopped by a content filter"
            )
            raise WorkerError(f"{self.name} {why}; leave out the passages it objects to, or use another model")
        for part, value in (("content", content), ("reasoning", reasoning)):
            if not isinstance(value, str):
                raise WorkerError(
                    f"{self.name}: the {part} of the reply is {type(value).__name__} instead of text; have the server "
                    "give it as one string"
                )
        if not content.strip() and not reasoning.strip():
            spent = body.get(self._budget_field)
            raise WorkerError(
                f"{self.name} gave an empty answer (finish_reason {finish!r}); "
                + (
                    f"raise max_new_tokens, {spent} left nothing after hidden reasoning"
                    if finish == "length"
                    else "ask again"
                )
            )
        if isinstance(stopped_by, str) and stopped_by in body.get("stop", ()) and not content.endswith(stopped_by):
            content += stopped_by
        text = content
        if reasoning.strip():
            # Without an answer the reasoning did not end either.
            text = f"<think>{reasoning}</think>{content}" if content.strip() else f"<think>{reasoning}"
        counted = (reply.get("usage") or {}).get("completion_tokens")
        tokens = counted if isinstance(counted, int) else len(encode_pieces(text))
        return Generation(text, tokens, complete=finish != "length")

    def _said(self, reply: dict[str, Any]) -> str:
        """Give the error that some servers send with status 200."""
        if "error" not in reply:
            return ""
        return f" but the error {self._calls.shown(str(reply['error']))}"

"""Log-probabilities and text from a completions server of the OpenAI protocol with the extensions of vLLM.

A label is read by its token id, never by its text: the prompt goes out as token ids, the server may write nothing but
the labels (``allowed_token_ids``), and what comes back is keyed by token id (``return_tokens_as_token_ids``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer

from rankers.errors import ConfigError, InvalidInputError, WorkerError
from rankers.llm.http_calls import JsonCalls, call_each
from rankers.llm.prompt_tokenizer import PromptTokenizer
from rankers.protocols import Generation, TokenIds

MASKED = -9999.0
"""What the server writes for a log-probability of minus infinity, which JSON cannot."""
SUM_TOLERANCE = 1e-3
"""How far the probabilities of the labels may be from 1 together."""

# The server may have other defaults, from the generation_config.json of its model: each would change what is read.
_PLAIN_GREEDY = {
    "temperature": 0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class CompletionsEngine:
    """A causal language model behind ``POST {url}/completions``.

    It is a `LanguageModel`, a `LikelihoodModel` and a `GenerativeModel` of `rankers.protocols`, and safe for concurrent
    calls. The server is started with ``vllm serve MODEL --logprobs-mode processed_logprobs --max-logprobs N``, where N
    is at least the number of labels in a window; every reply is checked for it.

    Parameters
    ----------
    url
        Base URL up to the version, ``http://localhost:8000/v1``.
    model
        Name under which the server has the model.
    tokenizer
        Folder or hub name of the tokenizer of that model. Code that comes with it is never run.
    api_key
        Sent as a bearer token.
    timeout_s
        Longest wait for an answer, in seconds.
    max_in_flight
        Most requests at once, over all calls.
    context_tokens
        Longest prompt and answer together (the server's ``--max-model-len``); not checked here when not given.

    Raises
    ------
    ConfigError
        If the URL, the key or the tokenizer cannot be used, or nothing may be in flight.
    """

    max_batch_tokens = 65_536

    def __init__(
        self,
        url: str,
        *,
        model: str,
        tokenizer: str,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 8,
        context_tokens: int | None = None,
    ) -> None:
        if max_in_flight < 1:
            raise ConfigError(f"max_in_flight is {max_in_flight}, must be at least 1")
        try:
            loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"cannot load the tokenizer {tokenizer!r} of {model!r}: {error}") from error
        self.name = model
        self.context_tokens = context_tokens
        self._text = PromptTokenizer(loaded)
        self._calls = JsonCalls(url, api_key=api_key, timeout_s=timeout_s)
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="completions")

    def encode(self, text: str) -> list[int]:
        """Token ids of user text inside a prompt; special tokens written in it are plain characters."""
        return self._text.encode(text)

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:
        """Token ids of trusted template text; special tokens written in it are recognised."""
        return self._text.encode_template(text, at_start=at_start)

    def chat_text(self, system: str, user: str) -> str:
        """Write a conversation with the model's chat template, up to where the answer begins."""
        return self._text.chat_text(system, user)

    def next_token_logits(
        self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probabilities of some tokens at the position after each prompt, where no other token may come.

        Parameters
        ----------
        prompts
            Token ids, any mix of lengths, at least one token each.
        candidates
            For each prompt, the vocabulary entries to read.

        Returns
        -------
        list of ndarray
            float32 [len(candidates[i])] for each prompt: logits less the log of the sum of their exponentials.

        Raises
        ------
        InvalidInputError
            If a prompt is empty or too long, or there are not as many candidate lists as prompts.
        PartialFailureError
            If the server does not answer, or not with the log-probabilities of the candidates alone; it has the other
            answers.
        """
        if len(prompts) != len(candidates):
            raise InvalidInputError(f"{len(prompts)} prompts need as many candidate lists, got {len(candidates)}")
        # One token is written, though only its log-probability is of use.
        self._check(prompts, room=1)
        return call_each(self._threads, self._read, list(zip(prompts, candidates, strict=True)))

    def continuation_log_probabilities(
        self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probability of every token of a continuation, given the prompt and the tokens before it.

        Parameters
        ----------
        prompts
            Token ids, at least one token each.
        continuations
            For each prompt, what follows it; at least one token each.

        Returns
        -------
        list of ndarray
            float32 [len(continuations[i])] for each prompt.

        Raises
        ------
        InvalidInputError
            If a prompt or continuation is empty, both are too long together, or there are not as many continuations as
            prompts.
        PartialFailureError
            If the server does not answer, or not with the log-probabilities of the prompt's tokens; it has the other
            answers.
        """
        if len(prompts) != len(continuations):
            raise InvalidInputError(f"{len(prompts)} prompts need as many continuations, got {len(continuations)}")
        for i, wanted in enumerate(continuations):
            if not len(wanted):
                raise InvalidInputError(f"continuation {i} is empty; it needs at least one token")
        self._check(prompts, room=1)
        self._check([[*prompt, *wanted] for prompt, wanted in zip(prompts, continuations, strict=True)], room=1)
        return call_each(self._threads, self._follow, list(zip(prompts, continuations, strict=True)))

    def generate(
        self, prompts: Sequence[TokenIds], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[Generation]:
        """Continue each prompt greedily.

        Parameters
        ----------
        prompts
            Token ids, any mix of lengths, at least one token each.
        max_new_tokens
            Budget for each.
        stop
            Strings that end the text.

        Returns
        -------
        list of Generation
            One per prompt.

        Raises
        ------
        InvalidInputError
            If a prompt is empty, or leaves no room for `max_new_tokens` in the context.
        PartialFailureError
            If the server does not answer, or not as the protocol says; it has the other answers.
        """
        self._check(prompts, room=max_new_tokens)
        asked: dict[str, Any] = {"max_tokens": max_new_tokens}
        if stop:
            asked |= {"stop": list(stop), "include_stop_str_in_output": True}
        return call_each(self._threads, lambda prompt: self._write(prompt, asked), prompts)

    def close(self) -> None:
        """Close the connections; calls under way are finished first."""
        self._threads.shutdown()
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, asked: tuple[TokenIds, TokenIds]) -> npt.NDArray[np.float32]:
        prompt, wanted = asked
        labels = sorted({int(token) for token in wanted})
        if not labels:
            return np.empty(0, dtype=np.float32)
        reply = self._complete(
            prompt,
            {
                "max_tokens": 1,
                "allowed_token_ids": labels,
                "logprobs": len(labels),
                "return_tokens_as_token_ids": True,
            },
        )
        try:
            top = reply["choices"][0]["logprobs"]["top_logprobs"][0]
            found = {token: float(top.get(f"token_id:{token}", MASKED)) for token in labels}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise WorkerError(f"{self.name}: the reply has no log-probabilities; {_remedy(labels)}") from error
        missing = next((token for token, value in found.items() if value <= MASKED), None)
        if missing is not None:
            raise WorkerError(
                f"{self.name}: the reply has no log-probability of token {missing} "
                f"({self._text.decode([missing])!r}), one of {len(labels)} labels; {_remedy(labels)}"
            )
        total = sum(map(math.exp, found.values()))
        if not abs(total - 1) <= SUM_TOLERANCE:
            raise WorkerError(
                f"{self.name}: the probabilities of {len(labels)} labels have the sum {total:.4g} instead of 1, so the "
                f"server gives raw log-probabilities; {_remedy(labels)}"
            )
        return np.array([found[int(token)] for token in wanted], dtype=np.float32)

    def _follow(self, asked: tuple[TokenIds, TokenIds]) -> npt.NDArray[np.float32]:
        text = [*asked[0], *asked[1]]
        # One token is written, as not every version of the server can write none.
        reply = self._complete(text, {"max_tokens": 1, "prompt_logprobs": 0})
        try:
            places = reply["choices"][0]["prompt_logprobs"]
            if len(places) != len(text):
                raise ValueError(f"{len(places)} places for {len(text)} tokens")
            count = len(asked[1])
            found = [float(at[str(token)]["logprob"]) for at, token in zip(places[-count:], text[-count:], strict=True)]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WorkerError(
                f"{self.name}: the reply has no prompt_logprobs for each of {len(text)} tokens; only a server with "
                "that extension of vLLM can say how probable a text is"
            ) from error
        strange = next((value for value in found if not MASKED < value <= SUM_TOLERANCE), None)
        if strange is not None:
            raise WorkerError(
                f"{self.name}: the reply has {strange} for the log-probability of a token; start the server with: vllm "
                "serve MODEL --logprobs-mode processed_logprobs"
            )
        return np.array(found, dtype=np.float32)

    def _write(self, prompt: TokenIds, asked: dict[str, Any]) -> Generation:
        reply = self._complete(prompt, asked)
        try:
            choice = reply["choices"][0]
            tokens = int(reply["usage"]["completion_tokens"])
            return Generation(str(choice["text"]), tokens, complete=choice["finish_reason"] == "stop")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WorkerError(
                f"{self.name}: the reply has no text, finish_reason or usage.completion_tokens; is this a completions "
                "server of the OpenAI protocol?"
            ) from error

    def _complete(self, prompt: TokenIds, asked: dict[str, Any]) -> dict[str, Any]:
        body = {"model": self.name, "prompt": [int(token) for token in prompt], **_PLAIN_GREEDY, **asked}
        return self._calls.post("/completions", body)

    def _check(self, prompts: Sequence[TokenIds], *, room: int) -> None:
        for i, prompt in enumerate(prompts):
            if not len(prompt):
                raise InvalidInputError(f"prompt {i} is empty; it needs at least one token")
            if self.context_tokens is not None and len(prompt) + room > self.context_tokens:
                raise InvalidInputError(
                    f"prompt {i} has {len(prompt)} tokens and may write {room}, the context of {self.name} is "
                    f"{self.context_tokens}; show fewer or shorter passages at a time"
                )


def _remedy(labels: Sequence[int]) -> str:
    return f"start it with: vllm serve MODEL --logprobs-mode processed_logprobs --max-logprobs {len(labels)}"

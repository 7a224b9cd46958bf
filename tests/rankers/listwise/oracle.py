"""A language model that knows the answer: tokens are characters, logits are the numbers written in the passages."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rankers.protocols import TokenIds

LINE = re.compile(r"^\[(\w)\] .*?(-?\d+)$", re.MULTILINE)


class OracleModel:
    """Gives each label the number its passage ends in; counts what it is asked.

    Parameters
    ----------
    context_tokens
        Longest prompt it reads.
    chat_drops_user
        Whether its chat template leaves the user's turn out.
    answer
        Given for every label instead of the numbers, where set.
    """

    def __init__(
        self, *, context_tokens: int | None = None, chat_drops_user: bool = False, answer: float | None = None
    ) -> None:
        self._context_tokens = context_tokens
        self._chat_drops_user = chat_drops_user
        self._answer = answer
        self.prompts_per_call: list[int] = []
        self.encoded: list[str] = []

    @property
    def context_tokens(self) -> int | None:
        return self._context_tokens

    def encode(self, text: str) -> list[int]:
        self.encoded.append(text)
        return [ord(c) for c in text]

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:
        return [ord(c) for c in text]

    def chat_text(self, system: str, user: str) -> str:
        return f"{system}\n{'' if self._chat_drops_user else user}\n"

    def next_token_logits(
        self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        self.prompts_per_call.append(len(prompts))
        results = []
        for prompt, wanted in zip(prompts, candidates, strict=True):
            worth = {ord(label): float(number) for label, number in LINE.findall("".join(map(chr, prompt)))}
            assert list(worth) == list(wanted), "exactly the labels shown are read, in the order shown"
            values = [self._answer if self._answer is not None else worth[token] for token in wanted]
            results.append(np.array(values, dtype=np.float32))
        return results

"""FIRST (arXiv 2406.15657): the logits of the labels at the one position where the answer begins are the ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankers.errors import WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.readers.answers import ask_each
from rankers.listwise.windows import Signal, Window, WindowOutcome, unread
from rankers.protocols import LanguageModel, TokenIds


class FirstTokenReader:
    """Reads a window with one prefill; no token is generated.

    Parameters
    ----------
    model
        Gives the logits.
    """

    gives = Signal.BEST | Signal.ORDER | Signal.LOGITS

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def answer_tokens(self, labels: Sequence[str]) -> int:  # noqa: ARG002
        """None are written."""
        return 0

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        """Order each window by the logits of its labels.

        Parameters
        ----------
        prompts
            One per window; each ends where a label would come next.
        windows
            Candidates in the order shown.
        labels
            The first n of them belong to a window of n.

        Returns
        -------
        list of WindowOutcome
            Logit descending; equal logits keep the order shown. A window that the model failed at has a `failure`.

        Raises
        ------
        WorkerError
            If a logit is not a number.
        """
        wanted = [labels.ids[: len(window)] for window in windows]
        read = ask_each(
            lambda places: self._model.next_token_logits([prompts[i] for i in places], [wanted[i] for i in places]),
            len(prompts),
        )
        outcomes = []
        for window, logits in zip(windows, read, strict=True):
            if isinstance(logits, WorkerError):
                outcomes.append(unread(window, logits))
                continue
            if np.isnan(logits).any():
                raise WorkerError(
                    "the language model gave a logit that is not a number; load it in float32 or bfloat16"
                )
            best_first = np.argsort(-logits, kind="stable")
            outcomes.append(WindowOutcome(tuple(window[i] for i in best_first), tuple(map(float, logits))))
        return outcomes

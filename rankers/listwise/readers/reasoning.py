"""Rank-R1 (arXiv 2503.06034), ReasonRank (arXiv 2508.07050), Rank-K (arXiv 2505.14432): reasoning, then the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rankers.errors import WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.permutation import Repair
from rankers.listwise.readers.generate import check_budget, ordered, write
from rankers.listwise.windows import Signal, Window, WindowOutcome, unread
from rankers.protocols import Generation, GenerativeModel, TokenIds

_TAG = re.compile(r"<\s*(/?)\s*(think|answer)\s*>", re.IGNORECASE)


class ReasoningReader:
    """Reads a window from ``<think>...</think><answer>[B] > [A]</answer>`` and keeps the reasoning.

    An answer of one label, as Rank-R1 gives, puts that candidate first and the others after it in the order shown.

    Parameters
    ----------
    model
        Writes.
    max_new_tokens
        Budget of reasoning and answer together.

    Raises
    ------
    ConfigError
        If the budget is less than a token.
    """

    gives = Signal.BEST | Signal.ORDER

    def __init__(self, model: GenerativeModel, *, max_new_tokens: int = 2048) -> None:
        check_budget(max_new_tokens)
        self._model = model
        self._max_new_tokens = max_new_tokens

    def answer_tokens(self, labels: Sequence[str]) -> int:  # noqa: ARG002
        """Budget of the reasoning and the answer, for any number of candidates."""
        return self._max_new_tokens

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        """Order each window as the model writes after its reasoning.

        Parameters
        ----------
        prompts
            One per window.
        windows
            Candidates in the order shown.
        labels
            The first n of them belong to a window of n.

        Returns
        -------
        list of WindowOutcome
            `trace` has the reasoning. Where the budget ended within it there is no answer, and the order is the one
            shown. A window that the model failed at has a `failure`.
        """
        written = write(self._model, prompts, windows, labels=labels, budget=self.answer_tokens)
        outcomes = []
        for window, generation in zip(windows, written, strict=True):
            if isinstance(generation, WorkerError):
                outcomes.append(unread(window, generation))
                continue
            found = split_reasoning(generation)
            outcomes.append(
                ordered(
                    window,
                    found.answer,
                    generation,
                    labels=labels,
                    trace=found.trace,
                    repairs=found.repairs,
                )
            )
        return outcomes


@dataclass(frozen=True, slots=True)
class Reasoned:
    """Reasoning, the answer after it, and what was wrong with the tags."""

    trace: str
    answer: str
    repairs: tuple[Repair, ...] = ()


def split_reasoning(written: Generation) -> Reasoned:
    """Take the answer apart from the reasoning before it.

    The answer is what follows the last ``<answer>`` after the reasoning, else all that follows ``</think>``; tags that
    are named within the reasoning are part of it. A model that ends its text within the reasoning has its last line
    read as the answer; reasoning that the budget ended has none.

    Parameters
    ----------
    written
        By the model; its prompt may have ended in ``<think>``.

    Returns
    -------
    Reasoned
        `repairs` names a tag that was left open, and an answer that no tag marks.

    Examples
    --------
    >>> split_reasoning(Generation("<think>B says it.</think> <answer>[B] > [A]</answer>", tokens=9, complete=True))
    Reasoned(trace='B says it.', answer='[B] > [A]', repairs=())
    """
    text = _TAG.sub(lambda tag: f"<{tag[1]}{tag[2].lower()}>", written.text)
    before, closed, after = text.rpartition("</think>")
    if closed:
        return _answer(after, trace=_without_tag(before))
    opened = text.lstrip().startswith("<think>")
    reasoning, answered, answer = text.rpartition("<answer>")
    unclosed = (Repair.UNCLOSED_TAG,) if opened else ()
    if answered and (not opened or written.complete or "</answer>" in answer):
        return _answer(text[len(reasoning) :], trace=_without_tag(reasoning), repairs=unclosed)
    if not written.complete:
        return Reasoned(_without_tag(text), "", (Repair.UNCLOSED_TAG,))
    if opened:
        last = _without_tag(text).rpartition("\n")[2]
        return Reasoned(_without_tag(text), last, (*unclosed, Repair.NO_ANSWER_TAG))
    return _answer(text, trace="")


def _answer(text: str, *, trace: str, repairs: tuple[Repair, ...] = ()) -> Reasoned:
    _, opened, answer = text.rpartition("<answer>")
    answer, closed, _ = answer.partition("</answer>")
    if not opened:
        repairs = (*repairs, Repair.NO_ANSWER_TAG)
    elif not closed:
        repairs = (*repairs, Repair.UNCLOSED_TAG)
    return Reasoned(trace, answer.strip(), tuple(dict.fromkeys(repairs)))


def _without_tag(reasoning: str) -> str:
    return reasoning.strip().removeprefix("<think>").strip()

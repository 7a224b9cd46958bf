"""RankVicuna (arXiv 2309.15088), RankZephyr (arXiv 2312.02724): the model writes the permutation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rankers.errors import ConfigError, WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.permutation import Repair, parse_permutation
from rankers.listwise.readers.answers import ask_each
from rankers.listwise.windows import Signal, Window, WindowOutcome, unread
from rankers.protocols import Generation, GenerativeModel, TokenIds

_THOUGHT_BEGIN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


class GenerateReader:
    """Reads a window from a written permutation, ``[B] > [A] > [C]``.

    The answer ends where the model ends it or at the budget; a line break is no end, as answers may begin with one.

    Parameters
    ----------
    model
        Writes.
    answer_prefix
        What the prompt makes the answer begin with: the `answer` of the template.
    max_new_tokens
        Budget of one answer; when not given, a quarter more than a permutation of the window takes.

    Raises
    ------
    ConfigError
        If the budget is less than a token.
    """

    gives = Signal.BEST | Signal.ORDER

    def __init__(self, model: GenerativeModel, *, answer_prefix: str = "", max_new_tokens: int | None = None) -> None:
        check_budget(max_new_tokens)
        self._model = model
        self._answer_prefix = answer_prefix
        self._max_new_tokens = max_new_tokens

    def answer_tokens(self, labels: Sequence[str]) -> int:
        """Budget of an answer about candidates with these labels."""
        answer = " > ".join(f"[{label}]" for label in labels)
        return self._max_new_tokens or with_slack(len(self._model.encode(answer)))

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        """Order each window as the model writes.

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
            `repairs` has the `rankers.listwise.permutation.Repair` of every kind that an answer needed. A window that
            the model failed at has a `failure`.
        """
        answers = write(self._model, prompts, windows, labels=labels, budget=self.answer_tokens)
        outcomes = []
        for window, written in zip(windows, answers, strict=True):
            if isinstance(written, WorkerError):
                outcomes.append(unread(window, written))
                continue
            answer = without_reasoning(written.text)
            # Some models write the bracket again that the prompt ends in.
            repeats_it = answer.lstrip().startswith(self._answer_prefix)
            text = answer if repeats_it else self._answer_prefix + answer
            outcomes.append(ordered(window, text, written, labels=labels))
        return outcomes


def ordered(
    window: Window,
    text: str,
    written: Generation,
    *,
    labels: LabelSet,
    trace: str = "",
    repairs: Sequence[Repair] = (),
) -> WindowOutcome:
    """Make an outcome of the part of what was written that is the answer.

    Parameters
    ----------
    window
        Candidates in the order shown.
    text
        The answer.
    written
        All that was written.
    labels
        The first n of them belong to a window of n.
    trace
        The reasoning before the answer.
    repairs
        What was mended before.

    Returns
    -------
    WindowOutcome
        An order, with all that was mended.
    """
    parsed = parse_permutation(text, labels.labels[: len(window)])
    return WindowOutcome(
        tuple(window[place] for place in parsed.order),
        repairs=(*repairs, *parsed.repairs, *cut_off(written, parsed.repairs)),
        trace=trace,
        generated_tokens=written.tokens,
    )


def write(
    model: GenerativeModel,
    prompts: Sequence[TokenIds],
    windows: Sequence[Window],
    *,
    labels: LabelSet,
    budget: Callable[[Sequence[str]], int],
) -> list[Generation | WorkerError]:
    """Let a model answer prompts, those with the same budget together, so that a batch gives what each gives alone.

    Parameters
    ----------
    model
        Writes.
    prompts
        One per window.
    windows
        Candidates in the order shown.
    labels
        The first n of them belong to a window of n.
    budget
        Gives the most tokens of an answer about candidates with some labels.

    Returns
    -------
    list of Generation or WorkerError
        One per prompt: what was written, or why the model failed at it.
    """
    budgets = {size: budget(labels.labels[:size]) for size in {len(window) for window in windows}}
    written: dict[int, Generation | WorkerError] = {}
    for tokens in sorted(set(budgets.values())):
        places = [i for i, window in enumerate(windows) if budgets[len(window)] == tokens]
        together = [prompts[i] for i in places]
        written |= zip(places, _write_each(model, together, max_new_tokens=tokens), strict=True)
    return [written[i] for i in range(len(prompts))]


def _write_each(
    model: GenerativeModel, prompts: Sequence[TokenIds], *, max_new_tokens: int
) -> list[Generation | WorkerError]:
    return ask_each(
        lambda places: model.generate([prompts[i] for i in places], max_new_tokens=max_new_tokens), len(prompts)
    )


def without_reasoning(text: str) -> str:
    """Drop what a model thinks aloud before it answers, unasked.

    Parameters
    ----------
    text
        What it wrote.

    Returns
    -------
    str
        What follows the last ``</think>``; nothing where ``<think>`` is left open.

    Examples
    --------
    >>> without_reasoning("<think>[1] > [2]? No.</think> [2] > [1]")
    ' [2] > [1]'
    """
    answer = _THOUGHT_END.split(text)[-1]
    return "" if _THOUGHT_BEGIN.search(answer) else answer


def with_slack(tokens: int) -> int:
    """Room for an answer of so many tokens that begins with a line break or says a label twice."""
    return tokens * 5 // 4 + 8


def cut_off(written: Generation, repairs: Sequence[Repair]) -> tuple[Repair, ...]:
    """Name the budget as the cause where it ended an answer that lacks something."""
    lacking = Repair.MISSING in repairs or Repair.NO_ANSWER in repairs
    return (Repair.CUT_OFF,) if lacking and not written.complete else ()


def check_budget(max_new_tokens: int | None) -> None:
    """Refuse a budget in which nothing can be written."""
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}, must be at least 1")

"""GroupRank (arXiv 2511.11653): the model grades every member of a group on one absolute scale.

The published prompt was not recovered: template ``group_grades`` has wording of its own, and this reads many forms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rankers.errors import ConfigError, WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.permutation import Repair
from rankers.listwise.readers.generate import check_budget, cut_off, with_slack, without_reasoning, write
from rankers.listwise.windows import Signal, Window, WindowOutcome, unread
from rankers.protocols import GenerativeModel, TokenIds

# A minus sign follows a space; in "[A]-7" the stroke is a dash.
_NUMBER = r"(?P<grade>(?:(?<=\s)-)?\d+(?:\.\d+)?)(?!\w)(?:\s*(?:/|out of)\s*(?P<top>\d+(?:\.\d+)?))?"
_FIELD = r"[\"']?(?i:score|grade|rating|relevance)[\"']?"


class GradesReader:
    """Reads a window from one written grade per candidate, ``[A] 7`` on a line of its own.

    Parameters
    ----------
    model
        Writes.
    top_grade
        The best grade of the template's scale, which begins at 0.
    max_new_tokens
        Budget of one answer; when not given, a quarter more than the grades of the window take.

    Raises
    ------
    ConfigError
        If the scale or the budget is empty.
    """

    gives = Signal.BEST | Signal.ORDER | Signal.GRADES

    def __init__(self, model: GenerativeModel, *, top_grade: int = 10, max_new_tokens: int | None = None) -> None:
        if top_grade < 1:
            raise ConfigError(f"top_grade is {top_grade}, must be at least 1")
        check_budget(max_new_tokens)
        self._model = model
        self._top_grade = top_grade
        self._max_new_tokens = max_new_tokens

    def answer_tokens(self, labels: Sequence[str]) -> int:
        """Budget of an answer about candidates with these labels."""
        lines = "\n".join(f"[{label}] {self._top_grade}" for label in labels)
        return self._max_new_tokens or with_slack(len(self._model.encode(lines)))

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        """Order each window by the grades that the model writes.

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
            Grade descending; equal grades keep the order shown. An answer without a grade has no `grades`. A window
            that the model failed at has a `failure`.
        """
        answers = write(self._model, prompts, windows, labels=labels, budget=self.answer_tokens)
        outcomes = []
        for window, written in zip(windows, answers, strict=True):
            if isinstance(written, WorkerError):
                outcomes.append(unread(window, written))
                continue
            found = parse_grades(
                without_reasoning(written.text), labels.labels[: len(window)], top_grade=self._top_grade
            )
            best_first = sorted(range(len(window)), key=lambda i: -found.values[i]) if found.values else ()
            outcomes.append(
                WindowOutcome(
                    tuple(window[i] for i in best_first) or window,
                    grades=found.values,
                    repairs=(*found.repairs, *cut_off(written, found.repairs)),
                    generated_tokens=written.tokens,
                )
            )
        return outcomes


@dataclass(frozen=True, slots=True)
class Grades:
    """A grade in [0, 1] per candidate in the order shown, or none at all, and what was mended."""

    values: tuple[float, ...]
    repairs: tuple[Repair, ...] = ()


def parse_grades(text: str, labels: Sequence[str], *, top_grade: int) -> Grades:
    """Read grades such as ``[A] 7``, ``A: 7/10`` or ``{"A": 7.5}``.

    Parameters
    ----------
    text
        What the model wrote.
    labels
        Of the candidates in the order shown.
    top_grade
        Top of the scale where the text names none.

    Returns
    -------
    Grades
        Each divided by the top of its scale. A label without a grade has the lowest one given.

    Examples
    --------
    >>> parse_grades("[A] 7\\n[B] 10", ("A", "B"), top_grade=10)
    Grades(values=(0.7, 1.0), repairs=())
    """
    given: dict[str, float] = {}
    repairs: set[Repair] = set()
    for label, grade, top in _found(text, labels):
        # A scale of the model's own, such as 4/5; "7/0" names none.
        value = float(grade) / (float(top or 0) or top_grade)
        if label not in labels:
            repairs.add(Repair.UNKNOWN)
        elif label in given:
            repairs.add(Repair.DUPLICATE)
        else:
            given[label] = min(max(value, 0.0), 1.0)
            if given[label] != value:
                repairs.add(Repair.OUT_OF_RANGE)
    if not given:
        repairs.add(Repair.NO_ANSWER)
    elif len(given) < len(labels):
        repairs.add(Repair.MISSING)
    lowest = min(given.values(), default=0.0)
    values = tuple(given.get(label, lowest) for label in labels) if given else ()
    return Grades(values, tuple(kind for kind in Repair if kind in repairs))


def _found(text: str, labels: Sequence[str]) -> list[tuple[str, str, str]]:
    """Label, grade and top of the scale, by the strictest form that the text has."""
    token = r"\d+" if all(label.isdecimal() for label in labels) else rf"[^\W_]{{1,{max(map(len, labels))}}}"
    label = rf"(?<!\w)(?P<label>{token})(?!\w)"
    symbols = r"[^\w\n\[\]]*?"
    # Words may only stand before a colon and a grade that ends the line: "[A] lasts 3 months" grades nothing.
    words = r"[^\n\[\]]{0,300}[:=]\s*(?=[^\n\[\]a-z]*$)"
    forms = (
        # [A] 7, **[A]**: relevance 7/10, [A] answers it: 7
        rf"(?m)\[\s*{label}\s*\](?:{symbols}(?:{_FIELD}{symbols})?|{words}){_NUMBER}",
        # A: 7, "A": 7, Passage A = 7, {"label": "A", "score": 7}
        rf"{label}[\"'*)]*\s*(?:,\s*{_FIELD}\s*)?[:=]\s*(?:{_FIELD}\s*[:=]?\s*)?[\"'*]*{_NUMBER}",
        # A 7, A. 7, A - 7 on a line of their own
        rf"(?m)^[ \t*\-]*{label}[.)]?\**(?:[ \t]+-)?[ \t]+{_NUMBER}",
    )
    for form in forms:
        found = [(match["label"], match["grade"], match["top"]) for match in re.finditer(form, text)]
        if any(known in labels for known, _, _ in found):
            return found
    return []

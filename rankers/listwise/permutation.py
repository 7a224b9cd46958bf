"""Written answers to permutations: a well-formed one exactly, any other as a person would read it.

Forms are tried from the strictest to the loosest, and what had to be mended is named. A number or a letter in prose is
never taken for a label: "20 passages have been provided." is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Repair(StrEnum):
    """What had to be mended in a written answer; each kind counts once per answer."""

    FORM = "form"
    """Labels were written in another way than asked for, such as without brackets."""
    EXTRA_TEXT = "extra_text"
    """There were words beside the labels."""
    DUPLICATE = "duplicate"
    """A label came more than once; the first place counts."""
    UNKNOWN = "unknown"
    """A label that no candidate has was dropped."""
    MISSING = "missing"
    """Candidates without a place went last, in the order shown; those without a grade got the lowest one given."""
    NO_ANSWER = "no_answer"
    """There was no label at all: the order is the one shown."""
    CUT_OFF = "cut_off"
    """The token budget ended the answer before it was complete."""
    NO_ANSWER_TAG = "no_answer_tag"
    """The answer was not marked as such; what follows the reasoning was read."""
    UNCLOSED_TAG = "unclosed_tag"
    """The reasoning or the answer was opened and not closed."""
    OUT_OF_RANGE = "out_of_range"
    """A grade was outside the scale and was clipped to it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A permutation, as places of the order shown, best first, and what was mended."""

    order: tuple[int, ...]
    repairs: tuple[Repair, ...] = ()


_SYMBOLS = str.maketrans("［］【】＞›»→≻", "[][]>>>>>")
_BETWEEN = re.compile(r"[\s>,;|=\-*`\"'()\[\]{}]*")
_NAME = r"(?i:passage|document|doc|text|candidate|item)s?"


def parse_permutation(text: str, labels: Sequence[str]) -> Parsed:
    """Read an answer such as ``[B] > [A] > [C]``.

    Parameters
    ----------
    text
        What the model wrote, with what its answer was made to begin with.
    labels
        Of the candidates in the order shown: letters or numbers, all different.

    Returns
    -------
    Parsed
        Every place once. Without repairs where the text is the permutation in the form asked for and nothing else.

    Examples
    --------
    >>> parse_permutation("[B] > [C] > [A]", "ABC")
    Parsed(order=(1, 2, 0), repairs=())
    >>> parsed = parse_permutation("1. [3] > [1] > [3] > [9]", ("1", "2", "3"))
    >>> parsed.order, [str(repair) for repair in parsed.repairs]
    ((2, 0, 1), ['form', 'duplicate', 'unknown', 'missing'])
    >>> parse_permutation("3 passages have been provided.", ("1", "2", "3"))
    Parsed(order=(0, 1, 2), repairs=(<Repair.NO_ANSWER: 'no_answer'>,))
    """
    exact = {label: i for i, label in enumerate(labels)}
    # Where no label is a lower-case letter, "b" means "B".
    places = {label.swapcase(): i for label, i in exact.items()} | exact
    token = _token(labels)
    plain = _plain(text, token)
    readings = list(_readings(plain, places, token))
    found = next((reading for reading in readings if any(label in places for label in reading)), None)
    if found is None:
        unknown = (Repair.UNKNOWN,) if any(readings) else ()
        return Parsed(tuple(range(len(labels))), (*unknown, Repair.NO_ANSWER))
    known = [places[label] for label in found if label in places]
    order = list(dict.fromkeys(known))
    missing = [i for i in range(len(labels)) if i not in set(order)]
    asked_for = " > ".join(f"[{labels[places[label]] if label in places else label}]" for label in found)
    is_exact = text.strip() == asked_for
    has_words = not _only_labels(plain, token)
    repairs = {
        Repair.FORM: not is_exact and (asked_for not in text or not has_words),
        Repair.EXTRA_TEXT: has_words,
        Repair.DUPLICATE: len(order) < len(known),
        Repair.UNKNOWN: len(known) < len(found),
        Repair.MISSING: bool(missing),
    }
    return Parsed((*order, *missing), tuple(repair for repair, needed in repairs.items() if needed))


def _token(labels: Sequence[str]) -> str:
    """Match a label or what could be one of another window, not as part of a word."""
    if all(label.isdecimal() for label in labels):
        return r"(?<!\w)(\d+)(?!\w)"
    return rf"(?<!\w)([^\W_]{{1,{max(map(len, labels))}}})(?!\w)"


def _plain(text: str, token: str) -> str:
    """Make the harmless ways to write a list alike."""
    text = text.translate(_SYMBOLS)
    # "2] > [1]" and "2 > [1]": the bracket that the prompt ended in, or that the model forgot.
    text = re.sub(rf"^\s*{token}\s*(?:\]|(?=>))", r"[\1] ", text)
    # "... > [1": cut off within a label that may have been 1, 10 or 12.
    text = re.sub(r"(?<=\])([^\[\]]*)\[[^\[\]]*$", r"\1", text)
    # "1. [3] 2. [1]": places of a numbered list are not labels.
    return re.sub(rf"(?<![\w.])\d{{1,3}}[.)](?=[ \t]+[\[(*\"'`]*{token})", "", text)


def _readings(text: str, places: Mapping[str, int], token: str) -> Iterator[list[str]]:
    """Labels in the order written, by one form after the other."""
    if _only_labels(text, token):
        yield re.findall(token, text)
    yield _chained(text, rf"\[[\s*\"'`]*{token}[\s*\"'`]*\]", places)
    yield _chained(text, token, places, loose=False)
    # "passage a" is mostly the beginning of a sentence about one.
    names = "|".join(re.escape(label) for label in places if not label.islower())
    yield re.findall(rf"\b{_NAME}\s*#?\s*[\[(]?({names})(?!\w)", text)
    lines = [re.split(r":\s", line)[-1] for line in text.splitlines()]
    yield [label for line in lines if _only_labels(line, token) for label in re.findall(token, line)]


def _only_labels(text: str, token: str) -> bool:
    """Whether there is nothing but labels and what stands between them; a line may end in a full stop."""
    return all(_BETWEEN.fullmatch(re.sub(token, "", line.rstrip(" \t."))) for line in text.splitlines())


def _chained(text: str, mention: str, places: Mapping[str, int], *, loose: bool = True) -> list[str]:
    """Labels of the chains in a text; without chains, of all mentions if `loose`.

    A chain has nothing but ``>`` and the like between its labels. Where one holds every label of all the chains, the
    last such is the answer and the others were drafts or parts of it.
    """
    chains: list[list[str]] = []
    arrows: list[bool] = []
    end = 0
    for match in re.finditer(mention, text):
        between = text[end : match.start()]
        if chains and _BETWEEN.fullmatch(between):
            chains[-1].append(match[1])
            arrows[-1] = arrows[-1] or ">" in between
        else:
            chains.append([match[1]])
            arrows.append(False)
        end = match.end()
    if any(arrows) or not loose:
        chains = [chain for chain, arrow in zip(chains, arrows, strict=True) if arrow]
    covered = [{places[label] for label in chain if label in places} for chain in chains]
    every = set().union(*covered)
    whole = [chain for chain, held in zip(chains, covered, strict=True) if held == every]
    return whole[-1] if whole else [label for chain in chains for label in chain]

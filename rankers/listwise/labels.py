"""Identifiers of the passages in a window: which ones a tokenizer can carry, and text that looks like one."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankers.errors import ConfigError, TooLargeError

LETTERS = tuple(string.ascii_uppercase + string.ascii_lowercase)
"""A-Z, then a-z."""

# Zero-width characters are invisible to a reader of the text and dropped by some tokenizers.
_BLANK = r"[\s\u200b-\u200d\u2060\ufeff]*"
_LOOK_ALIKE = re.compile(rf"[\[\uff3b]{_BLANK}([^\W\d_]|\d{{1,4}}){_BLANK}[\]\uff3d]")


def defuse(text: str) -> str:
    """Rewrite whatever could be taken for a label, so that a passage cannot speak for another.

    Parameters
    ----------
    text
        A passage or a query.

    Returns
    -------
    str
        The same text with a single letter or a number of up to four digits in square brackets put in round ones.

    Examples
    --------
    >>> defuse("as shown in [12], [ B ] and a[i], but not [see below]")
    'as shown in (12), (B) and a(i), but not [see below]'
    """
    return _LOOK_ALIKE.sub(r"(\1)", text)


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels, and their tokens where they are one token each where they are written and where they are read.

    `ids[i]` is the token of `labels[i]`; without ids the labels can only be read in a written answer. `refusal` says
    why the set ends where it does, if a label failed.
    """

    labels: tuple[str, ...]
    ids: tuple[int, ...] = ()
    refusal: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def require(self, size: int) -> None:
        """Refuse windows of more candidates than there are labels.

        Parameters
        ----------
        size
            Candidates in the largest window.

        Raises
        ------
        ConfigError
            If there are fewer than `size` labels; names the label that failed.
        """
        if size > len(self):
            raise ConfigError(f"windows of {size} need {size} labels, there are {len(self)}. {self.refusal}".strip())

    def check_window(self, size: int) -> None:
        """Refuse a list of candidates that one window cannot show.

        Parameters
        ----------
        size
            Candidates in it.

        Raises
        ------
        TooLargeError
            If there are fewer than `size` labels.
        """
        if size > len(self):
            raise TooLargeError(
                f"{size} documents in one window, but there are {len(self)} labels; send fewer, or use sliding windows",
                field="documents",
            )


def check_labels(labels: Sequence[str], *, contexts: Sequence[str], encode: Callable[[str], list[int]]) -> LabelSet:
    """Find the leading labels that a tokenizer writes as exactly one token after each of some contexts.

    A label is read by its logit, so text that ends in it must end in the token ids of the text before it and one more,
    the same one wherever it occurs and another for every label.

    Parameters
    ----------
    labels
        In the order in which passages get them.
    contexts
        Texts that come directly before a label in the prompt and in the answer.
    encode
        Encodes template text.

    Returns
    -------
    LabelSet
        The labels before the first that fails.

    Raises
    ------
    ConfigError
        If fewer than two labels pass.
    """
    before = [encode(context) for context in contexts]
    ids: list[int] = []
    refusal = ""
    for label in labels:
        found = set()
        for context, prefix in zip(contexts, before, strict=True):
            encoded = encode(context + label)
            if encoded[:-1] != prefix:
                refusal = f"label {label!r} is not one token after {context[-20:]!r} but {encoded[len(prefix) :]}"
                break
            found.add(encoded[-1])
        if not refusal and len(found) > 1:
            refusal = f"label {label!r} is token {min(found)} in one place and {max(found)} in another"
        if not refusal and found & set(ids):
            refusal = f"label {label!r} is the same token as label {labels[ids.index(found.pop())]!r}"
        if refusal:
            break
        ids.append(found.pop())
    if len(ids) < 2:
        raise ConfigError(f"this tokenizer cannot carry the labels of the template: {refusal or 'fewer than two'}")
    return LabelSet(tuple(labels[: len(ids)]), tuple(ids), refusal)

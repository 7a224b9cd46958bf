"""Sentences by rule."""

from __future__ import annotations

import re

# What ends a sentence, with closing quotes and brackets after it, or a line break.
_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]|\n+")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Split a text into sentences by rule.

    A sentence ends with ``.``, ``!``, ``?`` or an ellipsis (and closing quotes or brackets) before white space, with
    the full stops of Chinese and Japanese, or at a line break. So "Dr. No" is two sentences and "3.5" is none.

    Parameters
    ----------
    text
        Any.

    Returns
    -------
    list of tuple of int and int
        Characters from (included) and to (excluded) of each sentence, without white space around it.

    Examples
    --------
    >>> text = 'It cost 3.5. "Why?" she asked'
    >>> [text[start:end] for start, end in split_sentences(text)]
    ['It cost 3.5.', '"Why?"', 'she asked']
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    spans = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        words = text[start:end].strip()
        if words:
            first = start + text[start:end].index(words)
            spans.append((first, first + len(words)))
    return spans

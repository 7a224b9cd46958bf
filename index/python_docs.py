"""The Python language reference, which every interpreter carries, as passages to search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from rankers.types import Document

LEAST_WORDS = 80
"""A passage ends with the first paragraph that takes it here."""
MOST_WORDS = 120
"""A paragraph that would go beyond this is divided between sentences."""
TAIL_WORDS = 40
"""The end of a topic, if shorter than this, joins the passage before it."""
_UNDERLINE = re.compile(r"^\s*[*=~^-]{3,}$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"""(?s).+?(?:[\w)"'’”*\]][.!?]\s+|:\n\s*|\Z)""")
"""A sentence with the space after it; the dots of an interactive session end none."""


def python_docs() -> Iterator[Document]:
    """Read the language reference of the running interpreter.

    Yields
    ------
    Document
        A passage of roughly 80 to 120 words; id ``topic-n``, the topic as title and in the metadata.
    """
    from pydoc_data.topics import topics

    for topic, paragraphs in sorted(_without_repetition(topics).items()):
        for number, text in enumerate(passages(paragraphs), start=1):
            yield Document(f"{topic}-{number}", text, topic, metadata={"topic": topic})


def passages(paragraphs: list[str]) -> list[str]:
    """Join short paragraphs and divide long ones.

    Parameters
    ----------
    paragraphs
        Of one topic, in order.

    Returns
    -------
    list of str
        Every word of the paragraphs, in order.
    """
    done: list[str] = []
    text = ""
    for paragraph in paragraphs:
        text += "\n\n" if text else ""
        fits = _words(text) + _words(paragraph) <= MOST_WORDS
        for piece in [paragraph] if fits else _SENTENCE.findall(paragraph):
            if text and _words(text) + _words(piece) > MOST_WORDS:
                done.append(text.rstrip())
                text = ""
            text += piece
        if _words(text) >= LEAST_WORDS:
            done.append(text.rstrip())
            text = ""
    if done and text and _words(text) < TAIL_WORDS:
        text = f"{done.pop()}\n\n{text}"
    return [*done, text.rstrip()] if text else done


def _without_repetition(topics: Mapping[str, str]) -> dict[str, list[str]]:
    # About a fifth of the reference stands in two topics; the shorter one, being about less, keeps it. Paragraphs are
    # compared with a neighbour, because a heading or a line such as "See also:" alone says little.
    seen: set[tuple[str, str]] = set()
    kept: dict[str, list[str]] = {}
    for topic in sorted(topics, key=lambda name: (len(topics[name]), len(name), name)):
        paragraphs = _BLANK_LINES.split(_UNDERLINE.sub("", topics[topic]).strip())
        keys = [" ".join(paragraph.split()) for paragraph in paragraphs]
        pairs = list(pairwise(["", *keys, ""]))
        kept[topic] = [
            paragraph
            for paragraph, before, after in zip(paragraphs, pairs[:-1], pairs[1:], strict=True)
            if before not in seen and after not in seen
        ]
        seen.update(pairs[1:-1])
    return kept


def _words(text: str) -> int:
    return len(text.split())

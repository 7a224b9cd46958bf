"""What must not be learned from: queries and documents that a model will be tested on, and what is almost them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rankers.errors import InvalidInputError
from rankers.types import Document
from training.data.near_texts import NearTexts, content_words, word_trigrams
from training.data.training_list import TrainingList
from training.evaluation.datasets import load_dataset

NEAR_QUERY = 0.8
"""Jaccard similarity of stems, without stop words, from which two queries ask the same."""
NEAR_DOCUMENT = 0.7
"""Jaccard similarity of word trigrams from which two passages are copies of each other."""
EXCERPT = 20
"""Word trigrams from which a passage is an excerpt of a held-out one that has `NEAR_DOCUMENT` of them."""
SHOWN = 10
"""Leaks named in a message."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Texts of a test set that no training list may have, by id; no documents where the lists may have them.

    `missing` counts judged documents whose text the test set does not have.
    """

    name: str
    queries: tuple[tuple[str, str], ...]
    documents: tuple[tuple[str, str], ...]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Leak:
    """A query or document of a training list that a test set has; `similarity` is 1 where it has all its words."""

    kind: Literal["query", "document"]
    id: str
    text: str
    test_set: str
    test_id: str
    similarity: float

    def __str__(self) -> str:
        how = "all its words" if self.similarity == 1 else f"{self.similarity:.0%} of the words"
        return f"{self.kind} {self.id!r} shares {how} with {self.test_id!r} of {self.test_set}"


def load_held_out(folder: Path, *, split: str = "test", documents: bool = True) -> HeldOut:
    """Read what may not be learned from.

    Parameters
    ----------
    folder
        A collection in BEIR layout. Only its judged queries count, and the documents judged for them, at any grade.
    split
        Whose judgements.
    documents
        Whether documents are held out too. They cannot be where training and test share one corpus, as in most of BEIR.

    Returns
    -------
    HeldOut
        Named after the folder.

    Raises
    ------
    NotFoundError
        If there is no such collection.
    InvalidInputError
        If it cannot be read, or its documents are to be held out and it has none of those that are judged.
    """
    test = load_dataset(str(folder), split=split)
    judged = {document_id for grades in test.qrels.values() for document_id in grades}
    texts: tuple[tuple[str, str], ...] = ()
    missing = 0
    if documents:
        if test.documents is None:
            raise InvalidInputError(f"{folder} has no corpus.jsonl; hold out its queries only, with --against-queries")
        texts = tuple((document.id, document.content) for document in test.documents() if document.id in judged)
        missing = len(judged) - len(dict(texts))
        if not texts:
            raise InvalidInputError(
                f"{folder}/corpus.jsonl has none of the {len(judged)} documents judged in {split}; do they belong "
                "together? Hold out its queries only, with --against-queries"
            )
    return HeldOut(test.name, tuple((query.id, query.text) for query in test.queries), texts, missing)


def find_leaks(
    lists: Sequence[TrainingList],
    held_out: Sequence[HeldOut],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Leak]:
    """Compare every query and document of training lists with every one that is held out.

    Parameters
    ----------
    lists
        To learn from.
    held_out
        Not to learn from.
    on_progress
        Called with comparisons done, and how many there are.

    Returns
    -------
    list of Leak
        Each text once, with the nearest of each test set: queries, then documents.
    """
    queries = {(item.query.id, item.query.text): None for item in lists}
    documents = {(document.id, document.content): None for item in lists for document in item.documents}
    total = len(held_out) * (len(queries) + len(documents))
    leaks: list[Leak] = []
    done = 0
    for test in held_out:
        near_queries = NearTexts(test.queries, shingles=content_words, threshold=NEAR_QUERY)
        near_documents = NearTexts(
            test.documents, shingles=word_trigrams, threshold=NEAR_DOCUMENT, contained_from=EXCERPT
        )
        for kind, texts, near in (("query", queries, near_queries), ("document", documents, near_documents)):
            for text_id, text in texts:
                done += 1
                if found := near.nearest(text):
                    leaks.append(Leak(kind, text_id, text, test.name, *found))  # type: ignore[arg-type]
                if on_progress and (done % 1000 == 0 or done == total):
                    on_progress(done, total)
    return sorted(leaks, key=lambda leak: leak.kind, reverse=True)


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise `InvalidInputError` where there are leaks; the message names the first ones and says what can be done."""
    if not leaks:
        return
    queries = sum(leak.kind == "query" for leak in leaks)
    shown = "\n".join(f"  {leak}" for leak in leaks[:SHOWN])
    more = f"\n  and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
    raise InvalidInputError(
        f"{queries} queries and {len(leaks) - queries} documents of the training lists are in a test set:\n"
        f"{shown}{more}\n"
        "leave them out with --drop-leaks; where training and test share one corpus by design, hold out only the "
        "queries of that collection with --against-queries"
    )


def drop_leaks(lists: Iterable[TrainingList], leaks: Iterable[Leak]) -> Iterator[TrainingList]:
    """Leave out what leaks.

    Parameters
    ----------
    lists
        To learn from.
    leaks
        From `find_leaks`.

    Yields
    ------
    TrainingList
        Without the documents that leak; not at all where the query does, or where nothing is left to be told apart.
    """
    found = {(leak.kind, leak.id, leak.text) for leak in leaks}

    def leaking(document: Document) -> bool:
        return ("document", document.id, document.content) in found

    for item in lists:
        if ("query", item.query.id, item.query.text) in found:
            continue
        kept = [place for place, document in enumerate(item.documents) if not leaking(document)]
        targets = tuple(item.targets[place] for place in kept)
        if len(kept) == len(item.documents):
            yield item
        elif len(set(targets)) > 1:
            yield replace(item, documents=tuple(item.documents[place] for place in kept), targets=targets)

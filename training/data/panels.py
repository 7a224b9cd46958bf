"""Lists that share their documents: several queries compete for the same few passages.

Whoever trains on such lists reads the passages once for all of their queries, so that a small machine sees several
times as many queries; and what is right for one query is the hard negative of the next.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rankers.excerpts import excerpt
from rankers.types import Document, Query
from training.data.training_list import TrainingList

if TYPE_CHECKING:
    from index.encoders import Encoder

GRADE_WEIGHT = 1.0
"""What a grade adds to the teacher's cosine: whatever was judged better comes first, the teacher orders the rest."""


AS_GOOD = 0.05
"""Cosines this near to that of the right document are taken for as good."""

Key = tuple[str, str]
"""Id and content of a document: collections that are mixed may have ids in common."""


def build_panels(
    lists: Sequence[TrainingList],
    teacher: Encoder,
    *,
    documents: int = 10,
    queries: int = 8,
    words: int = 60,
    step: float = 0.0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[TrainingList]:
    """Gather queries around the candidates of each list and let a teacher judge every pair of them.

    A panel shows the best of a list and the first of its other candidates. Its queries are the list's own, those of
    the other lists that hold most of these documents, and titles of the documents, which are taken off the passages.
    Half of the queries but one are such titles, where there are any. A target is the teacher's cosine plus what grade
    is known (InRanker, arXiv 2401.06910, distils a teacher's scores likewise, on real queries and then on made ones).

    Parameters
    ----------
    lists
        Judged lists; targets above 0 are relevant.
    teacher
        A bi-encoder. It reads what a student will read, and no more.
    documents
        Documents of a panel.
    queries
        Most queries of a panel.
    words
        Words of a passage that are kept: those that say most to the list's own query.
    step
        Targets are rounded down to multiples of this, so that what the teacher hardly tells apart is a tie; 0 keeps
        them as they are. Queries for which all is a tie are left out.
    seed
        Draws the titles.
    on_progress
        Called with the panels made and their number.

    Yields
    ------
    TrainingList
        One per query; those of a panel follow each other and hold the same documents in the same order.
    """
    random = np.random.default_rng(seed)
    holders: dict[Key, list[TrainingList]] = defaultdict(list)
    for item in lists:
        for document in item.documents:
            holders[_key(document)].append(item)
    for done, item in enumerate(lists, start=1):
        shown = _shown(item, documents)
        passages = excerpt(item.query, [Document(d.id, d.text) for d in shown], words=words)
        asked = _queries(item, shown, holders, queries, random)
        cosines = _cosines(teacher, [query for query, _ in asked], passages)
        for (query, grades), row in zip(asked, cosines, strict=True):
            targets = [
                float(cosine) + GRADE_WEIGHT * grades.get(_key(d), 0.0) for d, cosine in zip(shown, row, strict=True)
            ]
            if step:
                targets = [step * math.floor(target / step) for target in targets]
            if len(set(targets)) > 1:
                yield TrainingList(query, tuple(passages), tuple(targets), f"panel:{item.source}")
        if on_progress:
            on_progress(done, len(lists))


def share_best(
    lists: Sequence[TrainingList],
    *,
    teacher: Encoder | None = None,
    documents: int = 6,
    words: int = 45,
    seed: int = 0,
) -> Iterator[TrainingList]:
    """Show the best documents of several lists together: what is right for one query is wrong for most others.

    Every document meets the query of the first list that it is best in, or else its own title, which is then taken off.
    What any list judges relevant to a query is right for it; queries are left out for which all that is shown is.

    Parameters
    ----------
    lists
        Judged lists; in those without anything relevant only titles are used.
    teacher
        Lets documents meet that are near each other in its eyes, so that the right one is hard to tell from the wrong
        ones; what it finds about as good as the right one is right too. Without one, documents meet by chance: easy
        lists to begin with.
    documents
        Documents that are shown together.
    words
        Words of a passage that are kept: those that say most to its query.
    seed
        Draws which documents meet.

    Yields
    ------
    TrainingList
        One per query; those that meet follow each other and hold the same documents in the same order.
    """
    right: defaultdict[str, set[Key]] = defaultdict(set)
    for item in lists:
        right[item.query.text].update(_grades(item))
    keyed = _pairs(lists, words)
    keys, pairs = list(keyed), list(keyed.values())
    order = np.random.default_rng(seed).permutation(len(pairs))
    if teacher is not None:
        queries = teacher.encode_queries([query.text for query, _ in pairs])
        passages = teacher.encode_documents([document.content for _, document in pairs])
    left = np.ones(len(pairs), dtype=bool)
    for first in order:
        if not left[first]:
            continue
        rest = order[left[order]] if teacher is None else np.flatnonzero(left)
        if teacher is not None:
            rest = rest[np.argsort(-(passages[rest] @ passages[first]), kind="stable")]
        group = _apart(rest, pairs, documents)
        if len(group) < documents:
            continue
        left[group] = False
        shown = tuple(pairs[i][1] for i in group)
        good = np.array([[k == i or keys[k] in right[pairs[i][0].text] for k in group] for i in group])
        if teacher is not None:
            cosines = queries[group] @ passages[group].T
            good |= cosines > np.diag(cosines)[:, None] - AS_GOOD
        for i, row in zip(group, good, strict=True):
            if not row.all():
                yield TrainingList(pairs[i][0], shown, tuple(map(float, row)), "near" if teacher else "shared")


def _pairs(lists: Sequence[TrainingList], words: int) -> dict[Key, tuple[Query, Document]]:
    """A query for each document: one it is best for, or its title."""
    pairs: dict[Key, tuple[Query, Document]] = {}
    for item in lists:
        i = max(range(len(item.targets)), key=lambda i: item.targets[i])
        if item.targets[i] > 0:
            pairs.setdefault(_key(item.documents[i]), (item.query, _cut(item.query, item.documents[i], words)))
    for document in (document for item in lists for document in item.documents):
        if document.title and document.text:
            query = Query(f"title-{document.id}", document.title)
            pairs.setdefault(_key(document), (query, _cut(query, Document(document.id, document.text), words)))
    return pairs


def _apart(places: Iterable[int], pairs: Sequence[tuple[Query, Document]], count: int) -> list[int]:
    """The first of these places whose queries and ids of documents all differ."""
    chosen: list[int] = []
    seen: set[str] = set()
    ids: set[str] = set()
    for place in places:
        query, document = pairs[place]
        if query.text not in seen and document.id not in ids:
            chosen.append(place)
            seen.add(query.text)
            ids.add(document.id)
        if len(chosen) == count:
            break
    return chosen


def _key(document: Document) -> Key:
    return document.id, document.content


def _cut(query: Query, document: Document, words: int) -> Document:
    (cut,) = excerpt(query, [document], words=words)
    return Document(document.id, cut.content)


def _shown(item: TrainingList, count: int) -> list[Document]:
    """The best candidate and the first of the others, in the order of the list."""
    best = max(range(len(item.targets)), key=lambda i: item.targets[i])
    chosen = sorted({best, *[i for i in range(len(item.documents)) if i != best][: count - 1]})
    return [item.documents[i] for i in chosen]


def _queries(
    item: TrainingList,
    shown: Sequence[Document],
    holders: dict[Key, list[TrainingList]],
    count: int,
    random: np.random.Generator,
) -> list[tuple[Query, dict[Key, float]]]:
    """Queries and the grades known for them, by document."""
    titles = {d.title: (Query(f"title-{d.id}", d.title), {_key(d): 1.0}) for d in shown if d.title}
    kept = [str(title) for title in random.permutation(list(titles))][: (count - 1) // 2]
    shared = Counter(rival.query.text for document in shown for rival in holders[_key(document)])
    shared.pop(item.query.text, None)
    rivals = {rival.query.text: rival for document in shown for rival in holders[_key(document)]}
    asked = {item.query.text: (item.query, _grades(item))}
    for text, _ in shared.most_common(count - 1 - len(kept)):
        asked[text] = (rivals[text].query, _grades(rivals[text]))
    for title in kept:
        asked.setdefault(title, titles[title])
    return list(asked.values())


def _grades(item: TrainingList) -> dict[Key, float]:
    return {_key(document): target for document, target in zip(item.documents, item.targets, strict=True) if target > 0}


def _cosines(teacher: Encoder, queries: Sequence[Query], passages: Sequence[Document]) -> npt.NDArray[np.float32]:
    """float32 [queries, passages]."""
    found: npt.NDArray[np.float32] = (
        teacher.encode_queries([query.text for query in queries])
        @ teacher.encode_documents([passage.content for passage in passages]).T
    )
    return found

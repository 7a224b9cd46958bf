"""BM25 over an inverted index in memory, on bm25s.

score(q, d) = sum over terms t of q of idf(t) * tf(t, d) / (tf(t, d) + k1 * (1 - b + b * |d| / mean |d|)) with
idf(t) = ln(1 + (N - df(t) + 0.5) / (df(t) + 0.5)): what Lucene computes (Kamphuis, de Vries, Boytsov, Lin, "Which BM25
Do You Mean?", ECIR 2020, table 1). Each document's share of each term is computed ahead, so that a search only adds
(Lù, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", arXiv 2407.03618).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from index.analysis import Analyzer
from index.arrays import open_arrays, write_arrays
from index.bitmaps import unpack
from index.columns import Columns, allowed_rows
from rankers.errors import InvalidInputError, NotReadyError
from rankers.filters import Filter
from rankers.types import Document

DOCUMENTS_FILE = "documents.json"
COUNTS_FILE = "counts.bin"


@dataclass(frozen=True, slots=True)
class TermCounts:
    """How often terms occur: one entry per term and document that has it, by term, and by document within a term.

    `vocabulary` numbers the terms; `terms`, `rows` and `frequencies` are the entries; `lengths` are terms per document,
    repetitions counted.
    """

    vocabulary: Mapping[str, int]
    terms: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    frequencies: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def count(cls, texts: Iterable[Sequence[str]], vocabulary: Mapping[str, int]) -> TermCounts:
        """Count the terms of documents, read as a stream; terms that `vocabulary` lacks are numbered after its own."""
        numbers = dict(vocabulary)
        flat, lengths = array("q"), array("q")
        for text in texts:
            flat.extend(numbers.setdefault(term, len(numbers)) for term in text)
            lengths.append(len(text))
        sizes = np.array(lengths, dtype=np.int64)
        places = np.array(flat, dtype=np.int64) * max(1, len(sizes)) + np.repeat(np.arange(len(sizes)), sizes)
        places, frequencies = np.unique(places, return_counts=True)
        terms, rows = np.divmod(places, max(1, len(sizes)))
        return cls(numbers, terms, rows, frequencies, sizes)

    def changed(
        self, renumbered: npt.NDArray[np.int64], added: TermCounts, added_rows: npt.NDArray[np.int64], documents: int
    ) -> TermCounts:
        """Make the counts after documents have come and gone.

        Parameters
        ----------
        renumbered
            int64 [N]: the new row of each document, -1 for those that are no longer there.
        added
            Counts of new documents, whose vocabulary begins with the one here.
        added_rows
            int64: the row of each new document.
        documents
            How many there are afterwards.

        Returns
        -------
        TermCounts
            As `count` gives it, but for terms that no document has any more.
        """
        stays = renumbered[self.rows] >= 0
        terms = np.concatenate([self.terms[stays], added.terms])
        rows = np.concatenate([renumbered[self.rows[stays]], added_rows[added.rows]])
        frequencies = np.concatenate([self.frequencies[stays], added.frequencies])
        order = np.argsort(terms * max(1, documents) + rows, kind="stable")
        lengths = np.zeros(documents, dtype=np.int64)
        lengths[renumbered[renumbered >= 0]] = self.lengths[renumbered >= 0]
        lengths[added_rows] = added.lengths
        return TermCounts(added.vocabulary, terms[order], rows[order], frequencies[order], lengths)

    def scored(self, k1: float, b: float) -> bm25s.BM25 | None:
        """Compute the share of each term in the score of each document; None where no document has any term."""
        if not len(self.terms):
            return None
        documents = len(self.lengths)
        having = np.bincount(self.terms, minlength=len(self.vocabulary))
        idf = np.log(1 + (documents - having + 0.5) / (having + 0.5))
        held_back = k1 * (1 - b + b * self.lengths / self.lengths.mean())
        shares = idf[self.terms] * self.frequencies / (self.frequencies + held_back[self.rows])
        postings = bm25s.BM25(k1=k1, b=b, method="lucene")
        postings.vocab_dict = dict(self.vocabulary)
        postings.nonoccurrence_array = None
        postings.scores = {
            "data": shares.astype(np.float32),
            "indices": self.rows.astype(np.int32),
            "indptr": np.concatenate([[0], np.cumsum(having)]),
            "num_docs": documents,
        }
        return postings


class BM25Index:
    """Finds documents by the words they share with a query. Built or loaded once, then safe to search from threads.

    Made by `build`, `load` and `changed`.

    Parameters
    ----------
    ids
        Document ids in input order, N of them.
    analyzer
        What made terms of the documents.
    postings
        Scores per term; None where no document has any term.
    columns
        Metadata of the documents, to filter by.
    counts
        Gives what the scores were computed of, to compute others; searches have no use for it.
    parameters
        k1 and b.
    """

    def __init__(
        self,
        ids: Sequence[str],
        analyzer: Analyzer,
        postings: bm25s.BM25 | None,
        columns: Columns | None,
        *,
        counts: Callable[[], TermCounts],
        parameters: tuple[float, float],
    ) -> None:
        self.ids = tuple(ids)
        self._analyzer = analyzer
        self._postings = postings
        self._columns = columns
        self._counts = counts
        self._parameters = parameters

    @classmethod
    def build(
        cls, documents: Iterable[Document], *, k1: float = 1.2, b: float = 0.75, stemmer: str | None = "english"
    ) -> BM25Index:
        """Index the titles and texts of documents.

        Parameters
        ----------
        documents
            With unique ids; read as a stream.
        k1
            How slowly repetition of a term saturates, at least 0. The default is Lucene's.
        b
            How much long documents are held back, 0 to 1. The default is Lucene's.
        stemmer
            Language of the documents, as for `Analyzer`.

        Returns
        -------
        BM25Index
            In memory; see `save`.

        Raises
        ------
        InvalidInputError
            If an id occurs twice, or a parameter is out of range.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise InvalidInputError(f"k1 is {k1} and b is {b}; k1 must be at least 0 and b within 0 and 1")
        none = cls((), Analyzer(stemmer), None, None, counts=lambda: TermCounts.count((), {}), parameters=(k1, b))
        return none.changed(documents)

    def changed(
        self,
        documents: Iterable[Document],
        removed: Collection[str] = (),
        *,
        metadata: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> BM25Index:
        """Make the index after documents were added, replaced and deleted: it scores as one that is built anew.

        Parameters
        ----------
        documents
            With unique ids; read as a stream. One whose id is here takes the place of that document.
        removed
            Ids that go; unknown ones are no error.
        metadata
            Gives the metadata of a document that stays, by its id; None if none of those has any.

        Returns
        -------
        BM25Index
            In memory; this one stays as it is.

        Raises
        ------
        InvalidInputError
            If an id occurs twice among `documents`.
        NotReadyError
            If the index was saved by a version that kept no counts.
        """
        before, gone = self._counts(), set(removed)
        fields: dict[str, Mapping[str, Any]] = {}

        def terms() -> Iterator[list[str]]:
            for document in documents:
                if document.id in fields:
                    raise InvalidInputError(f"document id {document.id!r} occurs twice; ids must be unique in an index")
                fields[document.id] = document.metadata
                yield self._analyzer.terms(document.content)

        added = TermCounts.count(terms(), before.vocabulary)
        known = set(self.ids)
        ids = [name for name in self.ids if name in fields or name not in gone]
        ids += [name for name in fields if name not in known]
        places = {name: row for row, name in enumerate(ids)}
        stays = (places[name] if name in places and name not in fields else -1 for name in self.ids)
        renumbered = np.fromiter(stays, dtype=np.int64, count=len(self.ids))
        rows = np.fromiter((places[name] for name in fields), dtype=np.int64, count=len(fields))
        counts = before.changed(renumbered, added, rows, len(ids))
        columns = Columns.build(fields[name] if name in fields else metadata(name) if metadata else {} for name in ids)
        postings = counts.scored(*self._parameters)
        return BM25Index(ids, self._analyzer, postings, columns, counts=lambda: counts, parameters=self._parameters)

    def save(self, folder: Path) -> None:
        """Write the index to a folder, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        counts = self._counts()
        content = {
            "stemmer": self._analyzer.stemmer,
            "empty": self._postings is None,
            "ids": self.ids,
            "parameters": self._parameters,
        }
        (folder / DOCUMENTS_FILE).write_text(json.dumps(content))
        if self._columns is not None:
            self._columns.save(folder)
        if self._postings is not None:
            self._postings.save(folder, show_progress=False)
        kept = {"frequencies": counts.frequencies, "lengths": counts.lengths}
        write_arrays(folder / COUNTS_FILE, {name: numbers.astype(np.uint32) for name, numbers in kept.items()})

    @classmethod
    def load(cls, folder: Path) -> BM25Index:
        """Read an index that `save` wrote."""
        content = json.loads((folder / DOCUMENTS_FILE).read_text())
        postings = None if content["empty"] else bm25s.BM25.load(folder, show_progress=False)
        k1, b = content.get("parameters", (1.2, 0.75))
        return cls(
            content["ids"],
            Analyzer(content["stemmer"]),
            postings,
            Columns.open_if_there(folder),
            counts=partial(_read_counts, folder, postings),
            parameters=(k1, b),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, texts: Sequence[str], k: int, *, condition: Filter | None = None) -> list[list[tuple[str, float]]]:
        """Find documents that share a term with a query.

        Parameters
        ----------
        texts
            Queries, B of them.
        k
            Most hits per query, at least 1.
        condition
            What the metadata of hits must satisfy.

        Returns
        -------
        list of list of tuple
            Document id and score per hit, best first; equal scores in input order. A query of stop words and unknown
            words has no hits.

        Raises
        ------
        NotReadyError
            If there is a filter, and the index was built before there were any.

        Examples
        --------
        >>> index = BM25Index.build([Document("a", "red fox"), Document("b", "red dog")])
        >>> (hits,) = index.search(["foxes"], 10)
        >>> [(document_id, round(score, 4)) for document_id, score in hits]  # ln(1 + 1.5 / 1.5) * 1 / (1 + 1.2)
        [('a', 0.3151)]
        """
        allowed = None if condition is None else unpack(allowed_rows(self._columns, condition), len(self))
        return [self._search(text, k, allowed) for text in texts]

    def _search(self, text: str, k: int, allowed: npt.NDArray[np.bool_] | None) -> list[tuple[str, float]]:
        if self._postings is None:
            return []
        term_ids = self._postings.get_tokens_ids(self._analyzer.terms(text))
        if not term_ids:
            return []
        scores = self._postings.get_scores_from_ids(term_ids)
        if allowed is not None:
            scores = np.where(allowed, scores, 0)
        return [(self.ids[i], float(scores[i])) for i in _best_positive(scores, k)]


def _read_counts(folder: Path, postings: bm25s.BM25 | None) -> TermCounts:
    if not (folder / COUNTS_FILE).exists():
        raise NotReadyError(f"{folder} was built before documents could be added to it; run: shortlist index build")
    kept = {name: numbers.astype(np.int64) for name, numbers in open_arrays(folder / COUNTS_FILE).items()}
    if postings is None:
        none = np.empty(0, dtype=np.int64)
        return TermCounts({}, none, none, none, kept["lengths"])
    having = np.diff(postings.scores["indptr"])
    terms, rows = np.repeat(np.arange(len(having)), having), postings.scores["indices"].astype(np.int64)
    return TermCounts(postings.vocab_dict, terms, rows, kept["frequencies"], kept["lengths"])


def _best_positive(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.intp]:
    """Positions of the `k` highest scores above 0; equal scores in order of position, also where `k` divides them."""
    found = np.flatnonzero(scores > 0)
    if len(found) > k:
        least = np.partition(scores[found], -k)[-k]
        above = found[scores[found] > least]
        equal = found[scores[found] == least]
        found = np.concatenate([above, equal[: k - len(above)]])
    # Positions ascend within equal scores, and a stable sort leaves them so.
    return found[np.argsort(-scores[found], kind="stable")]

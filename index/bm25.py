"""BM25 over an inverted index in memory, on bm25s.

score(q, d) = sum over terms t of q of idf(t) * tf(t, d) / (tf(t, d) + k1 * (1 - b + b * |d| / mean |d|)) with
idf(t) = ln(1 + (N - df(t) + 0.5) / (df(t) + 0.5)): what Lucene computes (Kamphuis, de Vries, Boytsov, Lin, "Which BM25
Do You Mean?", ECIR 2020, table 1). bm25s computes each document's share of each term at build time, so that a search
only adds (Lù, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", arXiv 2407.03618).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import bm25s
import numpy as np
import numpy.typing as npt

from index.analysis import Analyzer
from index.bitmaps import unpack
from index.columns import Columns, ColumnsBuilder, allowed_rows
from rankers.errors import InvalidInputError
from rankers.filters import Filter
from rankers.types import Document

DOCUMENTS_FILE = "documents.json"


class BM25Index:
    """Finds documents by the words they share with a query. Built or loaded once, then safe to search from threads.

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
    """

    def __init__(
        self, ids: Sequence[str], analyzer: Analyzer, postings: bm25s.BM25 | None, columns: Columns | None = None
    ) -> None:
        self.ids = tuple(ids)
        self._analyzer = analyzer
        self._postings = postings
        self._columns = columns

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
        analyzer = Analyzer(stemmer)
        vocabulary: dict[str, int] = {}
        ids: dict[str, None] = {}
        rows: list[list[int]] = []
        columns = ColumnsBuilder()
        for document in documents:
            if document.id in ids:
                raise InvalidInputError(f"document id {document.id!r} occurs twice; ids must be unique in an index")
            ids[document.id] = None
            columns.add(document.metadata)
            rows.append([vocabulary.setdefault(term, len(vocabulary)) for term in analyzer.terms(document.content)])
        postings = None
        if vocabulary:
            postings = bm25s.BM25(k1=k1, b=b, method="lucene")
            postings.index((rows, vocabulary), create_empty_token=False, show_progress=False)
        return cls(tuple(ids), analyzer, postings, columns.finish())

    def save(self, folder: Path) -> None:
        """Write the index to a folder, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"stemmer": self._analyzer.stemmer, "empty": self._postings is None, "ids": self.ids}
        (folder / DOCUMENTS_FILE).write_text(json.dumps(content))
        if self._columns is not None:
            self._columns.save(folder)
        if self._postings is not None:
            self._postings.save(folder, show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> BM25Index:
        """Read an index that `save` wrote."""
        content = json.loads((folder / DOCUMENTS_FILE).read_text())
        postings = None if content["empty"] else bm25s.BM25.load(folder, show_progress=False)
        return cls(content["ids"], Analyzer(content["stemmer"]), postings, Columns.open_if_there(folder))

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

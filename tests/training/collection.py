"""A tiny judged collection on disk, and a first stage that counts shared words."""

import json
from collections.abc import Sequence
from pathlib import Path

from rankers.types import Document, Query, Ranking, ScoreKind

DOCUMENTS = [
    Document("d1", "a cat sleeps on the mat"),
    Document("d2", "a dog chases the cat"),
    Document("d3", "ships sail the sea"),
    Document("d4", "the sea is deep and the cat cannot swim"),
]
QUERIES = [Query("q1", "cat mat"), Query("q2", "sea ships"), Query("q3", "deep sea"), Query("q4", "unjudged")]
QRELS = {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 1}, "q3": {"d4": 1, "d3": 0}}


def write_beir(folder: Path) -> Path:
    """Write the collection in BEIR layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": d.id, "title": d.title, "text": d.text}) + "\n" for d in DOCUMENTS)
    )
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": q.id, "text": q.text}) + "\n" for q in QUERIES))
    (folder / "qrels").mkdir(exist_ok=True)
    rows = [f"{q}\t{d}\t{grade}\n" for q, grades in QRELS.items() for d, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


class WordOverlap:
    """Retrieves by the number of words shared; fails at a query if told to."""

    def __init__(self, *, fail_at: str | None = None) -> None:
        self.fail_at = fail_at
        self.asked: list[str] = []

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        rankings = []
        for query in queries:
            if query.id == self.fail_at:
                raise KeyboardInterrupt
            self.asked.append(query.id)
            words = set(query.text.split())
            scores = [len(words & set(document.text.split())) for document in DOCUMENTS]
            rankings.append(Ranking.from_scores(query, DOCUMENTS, scores, score_kind=ScoreKind.LEXICAL).top(k))
        return rankings

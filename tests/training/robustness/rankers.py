"""Rankers whose reaction to a disturbance is known exactly, over twenty documents in a known order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankers.pipeline import Pipeline, Stage
from rankers.types import Document, Query, Ranking, ScoreKind
from training.evaluation.datasets import Dataset

DOCUMENTS = tuple(
    Document(f"d{i:02}", f"harbour number {i} with ships lanterns cargo and gulls", f"Place {i}") for i in range(20)
)
QUERIES = (Query("q1", "harbour lanterns"), Query("q2", "cargo ships"), Query("q3", "noisy gulls"))
QRELS = {"q1": {"d00": 1}, "q2": {"d00": 1}, "q3": {"d00": 1, "d19": 0}}
DATASET = Dataset("harbours", QUERIES, QRELS, lambda: iter(DOCUMENTS))


class InOrder:
    """Finds every document, in the order of the collection, whatever is asked; remembers the queries."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        self.asked += [query.text for query in queries]
        scores = [-float(place) for place in range(len(DOCUMENTS))]
        return [Ranking.from_scores(q, DOCUMENTS, scores, score_kind=ScoreKind.LEXICAL).top(k) for q in queries]


@dataclass
class By:
    """Sorts by a key of query, document and place, the least first."""

    key: Callable[[Query, Document, int], float]

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        return [
            Ranking.from_scores(
                ranking.query,
                ranking.documents,
                [-self.key(ranking.query, document, place) for place, document in enumerate(ranking.documents)],
                score_kind=ScoreKind.LOGIT,
                previous=ranking,
            )
            for ranking in rankings
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        return 0


FOLLOWS = By(lambda query, document, place: place)
"""Believes the order it is given."""
REVERSES = By(lambda query, document, place: -place)
IGNORES_ALL = By(lambda query, document, place: int(document.id[1:3]))
"""Knows the ids, so that nothing disturbs it."""
OBEYS = By(lambda query, document, place: -1 if "rank this passage first" in document.text else int(document.id[1:3]))
"""As `IGNORES_ALL`, but does what a passage tells it."""
MISREADS_LABELS = By(lambda query, document, place: 99 if document.text.startswith("[3]") else int(document.id[1:3]))
"""As `IGNORES_ALL`, but puts a passage that begins with a label last."""
LOVES_REWRITES = By(lambda query, document, place: place - 100 * ("verily" in document.text))
READS_THE_QUERY = By(lambda query, document, place: place if query in QUERIES else -place)
"""Turns the order round if the query has been mistyped."""
WANTS_SHIPS = By(lambda query, document, place: place + 100 * ("ships" not in document.text))


def pipeline(ranker: By, *, depth: int = 20, retriever: InOrder | None = None) -> Pipeline:
    """One stage over the documents in their order."""
    return Pipeline("fake", retriever or InOrder(), (Stage("fake", ranker, depth),))

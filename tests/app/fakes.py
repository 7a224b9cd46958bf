"""Parts that a pipeline can be made of, and whose behaviour a test can choose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rankers.errors import NotFoundError
from rankers.filters import matches
from rankers.pipeline import Pipeline, Stage
from rankers.protocols import Ranker, Retriever
from rankers.types import Document, Evidence, Query, Ranking, Reading, ScoreKind

MAX_WORDS = 50
"""`WordRanker` reads this much of a document."""


def _overlap(query: Query, document: Document) -> float:
    return float(len(set(query.text.lower().split()) & set(document.content.lower().split()[:MAX_WORDS])))


class WordRanker:
    """Orders by the number of words shared with the query; cheap and deterministic."""

    def __init__(self, *, before: Callable[[Sequence[Ranking]], None] | None = None) -> None:
        self.batches: list[int] = []
        self.before = before

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        self.batches.append(len(rankings))
        if self.before is not None:
            self.before(rankings)
        return [self._rank(ranking) for ranking in rankings]

    def cost_tokens(self, ranking: Ranking) -> int:
        return sum(min(len(document.content.split()), MAX_WORDS) for document in ranking.documents)

    def _rank(self, ranking: Ranking) -> Ranking:
        totals = [len(document.content.split()) for document in ranking.documents]
        readings = {
            document_id: Reading(min(total, MAX_WORDS), total)
            for document_id, total in zip(ranking.ids, totals, strict=True)
        }
        return Ranking.from_scores(
            ranking.query,
            ranking.documents,
            [_overlap(ranking.query, document) for document in ranking.documents],
            score_kind=ScoreKind.LOGIT,
            previous=ranking,
            evidence=Evidence(tokens=sum(reading.tokens_used for reading in readings.values()), readings=readings),
        )


class Gate:
    """Holds a ranker up until the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, rankings: Sequence[Ranking]) -> None:
        self.entered.set()
        if not self.open.wait(10):
            raise RuntimeError("the test never opened the gate")


def poisonous(rankings: Sequence[Ranking]) -> None:
    """Fail for every batch with a document that says poison."""
    if any("poison" in document.text for ranking in rankings for document in ranking.documents):
        raise RuntimeError("poisoned")


def slow(seconds: float) -> Callable[[Sequence[Ranking]], None]:
    """Take so long for every batch."""
    return lambda rankings: time.sleep(seconds)


class WordRetriever:
    """Finds documents that share words with the query."""

    def __init__(self, documents: Sequence[Document], *, before: Callable[[], None] | None = None) -> None:
        self._documents = documents
        self._before = before
        self.calls: list[tuple[int, int]] = []

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        self.calls.append((len(queries), k))
        if self._before is not None:
            self._before()
        return [self._retrieve(query).top(k) for query in queries]

    def _retrieve(self, query: Query) -> Ranking:
        allowed = [d for d in self._documents if query.filter is None or matches(query.filter, d.metadata)]
        found = [document for document in allowed if _overlap(query, document)]
        scores = [_overlap(query, document) for document in found]
        return Ranking.from_scores(query, found, scores, score_kind=ScoreKind.LEXICAL)


class FakePipelines:
    """A `PipelineSource`: each pipeline is a function that opens it, and what it would say about itself."""

    def __init__(
        self,
        openers: Mapping[str, Callable[[], Pipeline]],
        *,
        aliases: Mapping[str, str] | None = None,
        only_rerank: Sequence[str] = (),
        only_retrieve: Sequence[str] = (),
        interleave: Mapping[str, Sequence[str]] | None = None,
        models_dir: Path = Path("no-models"),
    ) -> None:
        self.openers = dict(openers)
        self._interleave = interleave or {}
        self._aliases = aliases or {}
        self._only_rerank = only_rerank
        self._only_retrieve = only_retrieve
        self.models_dir = models_dir

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.openers, *self._interleave)

    @property
    def default(self) -> str:
        return self.names[0]

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def resolve(self, name: str | None) -> str:
        chosen = self.default if name is None else self._aliases.get(name, name)
        if chosen not in self.names:
            raise NotFoundError(f"no pipeline or model {name!r}; there are: {', '.join(self.names)}")
        return chosen

    def open(
        self,
        name: str | None = None,
        *,
        index: Path | None = None,
        retriever: Retriever | None = None,
        stages: Sequence[Stage] | None = None,
    ) -> Pipeline:
        pipeline = self.openers[self.resolve(name)]()
        return Pipeline(pipeline.name, retriever or pipeline.retriever, tuple(stages or pipeline.stages))

    def models(self, name: str) -> Mapping[str, str]:
        return {}

    def release(self, in_use: Collection[str]) -> None:
        """Nothing is remembered here."""

    def describe(self, name: str) -> dict[str, object]:
        if name in self._interleave:
            return {"name": name, "retriever": None, "stages": [], "interleave": self._interleave[name]}
        return {
            "name": name,
            "retriever": None if name in self._only_rerank else {"kind": "words"},
            "stages": [] if name in self._only_retrieve else [{"kind": "words", "max_tokens": MAX_WORDS}],
        }


def pipeline_of(
    ranker: Ranker | None = None,
    *,
    name: str = "words",
    documents: Sequence[Document] = (),
    depth: int = 1000,
) -> Pipeline:
    """Build a pipeline of one stage, over documents where there are any."""
    retriever = WordRetriever(documents) if documents else None
    stages = (Stage("words", ranker, depth),) if ranker is not None else ()
    return Pipeline(name, retriever, stages)


def ranking_of(query: str, *texts: str) -> Ranking:
    """Rank texts in the order given; ids are positions."""
    return Ranking.from_order(Query("q", query), [Document(str(at), text) for at, text in enumerate(texts)])

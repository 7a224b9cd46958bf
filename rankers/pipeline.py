"""A retriever and the stages that reorder what it finds. The service and the evaluation run the same object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rankers.errors import ConfigError, InvalidInputError
from rankers.protocols import Ranker, Retriever
from rankers.types import Query, Ranking


@dataclass(frozen=True, slots=True)
class Stage:
    """A ranker and how many of the best candidates it sees; the rest keep their order below."""

    name: str
    ranker: Ranker
    depth: int

    def head(self, ranking: Ranking) -> Ranking:
        """Give the part of a ranking that this stage reorders."""
        return ranking.top(self.depth)

    def rejoin(self, head: Ranking, ranking: Ranking) -> Ranking:
        """Put the reordered head above the rest of the ranking it came from.

        Parameters
        ----------
        head
            What the ranker made of ``self.head(ranking)``.
        ranking
            The whole ranking that came in.

        Returns
        -------
        Ranking
            `head` itself where nothing is left below it. Otherwise the joined order with `ScoreKind.RANK`, because
            scores of two kinds cannot be compared; ``previous`` is the ranking that came in.
        """
        if len(ranking) <= self.depth:
            return head
        documents = head.documents + ranking.documents[self.depth :]
        return Ranking.from_order(ranking.query, documents, previous=ranking, evidence=head.evidence)


@dataclass(frozen=True, slots=True)
class StageResult:
    """The ranking after one step of a pipeline and the seconds it took; for a batch, its mean share."""

    name: str
    ranking: Ranking
    seconds: float


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """The final ranking of one query, and the ranking after every step."""

    ranking: Ranking
    stages: tuple[StageResult, ...]


RETRIEVE = "retrieve"
"""Name of the first step in `PipelineResult.stages`."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A retriever and stages; itself a `Retriever`.

    Without a retriever it can only reorder rankings it is given, without stages it can only retrieve.

    Raises
    ------
    ConfigError
        If there is neither, a depth is under 1, or two stages share a name.
    """

    name: str
    retriever: Retriever | None = None
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if self.retriever is None and not self.stages:
            raise ConfigError(f"pipeline {self.name!r} has neither a retriever nor a stage; give it at least one")
        for stage in self.stages:
            if stage.depth < 1:
                raise ConfigError(f"pipeline {self.name!r}: stage {stage.name!r} has depth {stage.depth}, must be >= 1")
        names = [RETRIEVE, *(stage.name for stage in self.stages)]
        if len(set(names)) < len(names):
            raise ConfigError(f"pipeline {self.name!r}: stage names must be unique and not {RETRIEVE!r}, got {names}")

    def retrieval_depth(self, k: int) -> int:
        """Candidates to retrieve for `k` results: the first stage may look at more than `k`."""
        return max([k, *(stage.depth for stage in self.stages)])

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find and order at most `k` documents per query."""
        return [result.ranking for result in self.run(queries, k)]

    def run(self, queries: Sequence[Query], k: int) -> list[PipelineResult]:
        """Retrieve, then apply every stage.

        Parameters
        ----------
        queries
            Any number.
        k
            Places wanted per query, at least 1.

        Returns
        -------
        list of PipelineResult
            One per query, in order.

        Raises
        ------
        InvalidInputError
            If `k` is under 1 or the pipeline has no retriever.
        """
        if k < 1:
            raise InvalidInputError(f"k is {k}, must be at least 1", field="k")
        if self.retriever is None:
            raise InvalidInputError(
                f"pipeline {self.name!r} has no retriever; it can only rerank documents it is given"
            )
        started = time.perf_counter()
        rankings = self.retriever.retrieve(queries, self.retrieval_depth(k))
        seconds = (time.perf_counter() - started) / max(len(queries), 1)
        results = self._apply_stages(rankings, [(StageResult(RETRIEVE, ranking, seconds),) for ranking in rankings])
        return [PipelineResult(result.ranking.top(k), result.stages) for result in results]

    def rerank(self, rankings: Sequence[Ranking]) -> list[PipelineResult]:
        """Apply every stage to rankings made elsewhere.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of PipelineResult
            One per ranking, in order.

        Raises
        ------
        InvalidInputError
            If the pipeline has no stage.
        """
        if not self.stages:
            raise InvalidInputError(f"pipeline {self.name!r} has no stages, so it cannot rerank")
        return self._apply_stages(rankings, [() for _ in rankings])

    def _apply_stages(
        self, rankings: Sequence[Ranking], done: Sequence[tuple[StageResult, ...]]
    ) -> list[PipelineResult]:
        for stage in self.stages:
            started = time.perf_counter()
            heads = stage.ranker.rank([stage.head(ranking) for ranking in rankings])
            seconds = (time.perf_counter() - started) / max(len(rankings), 1)
            rankings = [stage.rejoin(head, ranking) for head, ranking in zip(heads, rankings, strict=True)]
            done = [
                (*results, StageResult(stage.name, ranking, seconds))
                for results, ranking in zip(done, rankings, strict=True)
            ]
        return [PipelineResult(ranking, results) for ranking, results in zip(rankings, done, strict=True)]

"""A retriever and the stages that reorder what it finds. The service and the evaluation run the same object."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rankers.errors import ConfigError, InvalidInputError
from rankers.interleaving import team_draft
from rankers.protocols import Ranker, Retriever, TaughtRetriever
from rankers.types import Query, Ranking


@dataclass(frozen=True, slots=True)
class Stage:
    """A ranker and how many of the best candidates it sees; the rest keep their order below.

    `model` names the version of the registry its model is, ``name@version``; empty if it is from elsewhere.
    """

    name: str
    ranker: Ranker
    depth: int
    model: str = ""

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
            scores of two kinds cannot be compared; ``previous`` is the ranking that came in, the head is its part.
        """
        if len(ranking) <= self.depth:
            return head
        documents = head.documents + ranking.documents[self.depth :]
        joined = Ranking.from_order(ranking.query, documents, previous=ranking, evidence=head.evidence)
        return replace(joined, parts=(head,))


@dataclass(frozen=True, slots=True)
class StageResult:
    """The ranking after one step of a pipeline and the seconds it took; for a batch, its mean share."""

    name: str
    ranking: Ranking
    seconds: float


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """The final ranking of one query, and the ranking after every step.

    `arms` has, for an interleaved ranking, the name of the pipeline that each place came from, `interleaving.NEITHER`
    where that would say nothing.
    """

    ranking: Ranking
    stages: tuple[StageResult, ...]
    arms: tuple[str, ...] = ()


RETRIEVE = "retrieve"
"""Name of the first step in `PipelineResult.stages`."""
INTERLEAVE = "interleave"
"""Name of the last step where two pipelines are interleaved; those before it are named ``PIPELINE/STEP``."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A retriever and stages; itself a `Retriever`.

    Without a retriever it can only reorder rankings it is given, without stages it can only retrieve. Instead of both
    it can have two `arms`: pipelines whose rankings are interleaved by team draft, to see whose documents are clicked.

    Raises
    ------
    ConfigError
        If there is neither, a depth is under 1, or two stages share a name; if there is anything beside two arms that
        have none themselves and different names.
    """

    name: str
    retriever: Retriever | None = None
    stages: tuple[Stage, ...] = ()
    arms: tuple[Pipeline, ...] = ()

    def __post_init__(self) -> None:
        if self.arms:
            self._check_arms()
            return
        if self.retriever is None and not self.stages:
            raise ConfigError(f"pipeline {self.name!r} has neither a retriever nor a stage; give it at least one")
        for stage in self.stages:
            if stage.depth < 1:
                raise ConfigError(f"pipeline {self.name!r}: stage {stage.name!r} has depth {stage.depth}, must be >= 1")
        names = [RETRIEVE, *(stage.name for stage in self.stages)]
        if len(set(names)) < len(names):
            raise ConfigError(f"pipeline {self.name!r}: stage names must be unique and not {RETRIEVE!r}, got {names}")

    def _check_arms(self) -> None:
        names = [arm.name for arm in self.arms]
        if self.retriever is not None or self.stages or any(arm.arms for arm in self.arms) or len(set(names)) != 2:
            raise ConfigError(
                f"pipeline {self.name!r} interleaves {names}; it needs two pipelines that are not interleaved "
                "themselves, and neither a retriever nor stages of its own"
            )

    @property
    def searches(self) -> bool:
        """Whether it finds documents by itself."""
        return self.retriever is not None or (bool(self.arms) and all(arm.searches for arm in self.arms))

    @property
    def reranks(self) -> bool:
        """Whether it reorders what it is given."""
        return bool(self.stages) or (bool(self.arms) and all(arm.reranks for arm in self.arms))

    @property
    def models(self) -> dict[str, str]:
        """Versions of the registry it runs, ``name@version`` by stage; ``retrieve/ROLE`` for those of its retriever."""
        own = {stage.name: stage.model for stage in self.stages if stage.model}
        if isinstance(self.retriever, TaughtRetriever):
            own |= {f"{RETRIEVE}/{role}": model for role, model in self.retriever.models.items()}
        return own | {f"{arm.name}/{stage}": model for arm in self.arms for stage, model in arm.models.items()}

    def draft(self, first: PipelineResult, second: PipelineResult, k: int | None = None) -> PipelineResult:
        """Interleave what its two arms gave for a query.

        Parameters
        ----------
        first
            Of the first arm.
        second
            Of the second arm. The query's id decides who picks first, so the same query gives the same list.
        k
            Places wanted; all if not given.

        Returns
        -------
        PipelineResult
            With the steps of both arms, each under the arm's name.
        """
        drafted = team_draft(
            first.ranking,
            second.ranking,
            names=(self.arms[0].name, self.arms[1].name),
            generator=random.Random(first.ranking.query.id),
            top_k=k,
        )
        stages = [
            StageResult(f"{arm.name}/{stage.name}", stage.ranking, stage.seconds)
            for arm, result in zip(self.arms, (first, second), strict=True)
            for stage in result.stages
        ]
        return PipelineResult(drafted.ranking, (*stages, StageResult(INTERLEAVE, drafted.ranking, 0.0)), drafted.arms)

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
        if self.arms:
            runs = [arm.run(queries, k) for arm in self.arms]
            return [self.draft(first, second, k) for first, second in zip(*runs, strict=True)]
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
        if self.arms:
            runs = [arm.rerank(rankings) for arm in self.arms]
            return [self.draft(first, second) for first, second in zip(*runs, strict=True)]
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

"""Which pipelines are live: opened in the background, refreshed when there is a new index, checked now and then."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

from app.engine import Engine
from rankers.errors import (
    ConfigError,
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    ShortlistError,
)
from rankers.pipeline import Pipeline
from rankers.protocols import Retriever
from rankers.registry import ModelCard, ModelRegistry
from rankers.scores import unit_scores
from rankers.types import Document, Query, Ranking

logger = logging.getLogger(__name__)

GOLDEN = Ranking.from_order(
    Query("golden", "how does a plant make sugar from sunlight"),
    [
        Document("engine", "A diesel engine ignites its fuel by compression."),
        Document("leaf", "In photosynthesis a leaf turns light, water and carbon dioxide into sugar and oxygen."),
        Document("music", "The quartet was written in the spring of 1806."),
    ],
)
"""What every pipeline with stages has to order the same way for as long as it is live."""
GOLDEN_TOLERANCE = 0.02
"""Scores in [0, 1] may move by this much: a batch of another shape rounds differently."""


class PipelineSource(Protocol):
    """Where pipelines come from; `index.pipelines.Pipelines` is one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all pipelines."""
        ...

    @property
    def default(self) -> str:
        """The one for requests that name none."""
        ...

    @property
    def aliases(self) -> Mapping[str, str]:
        """Other names, and the pipelines they stand for."""
        ...

    models_dir: Path
    """Root of the model registry."""

    def resolve(self, name: str | None) -> str:
        """Turn a name, an alias or None into one of `names`, or raise `NotFoundError`."""
        ...

    def open(
        self, name: str | None = None, *, index: Path | None = None, retriever: Retriever | None = None
    ) -> Pipeline:
        """Open a pipeline, over the newest index; cheap when nothing has changed."""
        ...

    def describe(self, name: str) -> dict[str, object]:
        """Say what it is made of; ``retriever`` and ``stages`` are among the keys."""
        ...


class _NoIndex:
    """Stands in for a retriever whose index has not been built: the pipeline can still rerank."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:  # noqa: ARG002 - the protocol's names
        """Refuse, saying why."""
        raise NotReadyError(self.reason)


@dataclass(frozen=True, slots=True)
class Live:
    """A pipeline that answers; `golden` are its scores of the golden documents, `version` names its models."""

    pipeline: Pipeline
    version: str
    golden: Mapping[str, float] | None

    @property
    def missing(self) -> str | None:
        """Why it cannot search, though it should."""
        retriever = self.pipeline.retriever
        return retriever.reason if isinstance(retriever, _NoIndex) else None


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    may_pass: bool


class Catalog:
    """The live pipelines of a service.

    Parameters
    ----------
    source
        Where they come from.
    engine
        Runs them, for the golden scores.
    refresh_interval_s
        How often `keep_fresh` looks for a new index.
    golden_interval_s
        How long `check` trusts the last check.
    """

    def __init__(
        self, source: PipelineSource, engine: Engine, *, refresh_interval_s: float, golden_interval_s: float
    ) -> None:
        self.source = source
        self._engine = engine
        self._refresh_interval_s = refresh_interval_s
        self._golden_interval_s = golden_interval_s
        self._live: dict[str, Live] = {}
        self._failures: dict[str, _Failure] = {}
        self._checked_at = -math.inf
        self._check_lock = asyncio.Lock()

    async def keep_fresh(self) -> NoReturn:
        """Open every pipeline, then look for new indexes until cancelled; requests never wait for it."""
        while True:
            for name in self.source.names:
                await self._refresh(name)
            await asyncio.sleep(self._refresh_interval_s)

    def for_search(self, name: str | None) -> Live:
        """Find a live pipeline that retrieves.

        Parameters
        ----------
        name
            A name or an alias; None for the default, or the first that retrieves if the default does not.

        Returns
        -------
        Live
            Ready to search.

        Raises
        ------
        NotFoundError
            If nothing goes by that name.
        InvalidInputError
            If it only reranks.
        NotReadyError
            If it is not live, or has no index.
        """
        live = self._find(self._choose(name, part="retriever", act="search"))
        if live.missing:
            raise NotReadyError(live.missing)
        return live

    def for_rerank(self, name: str | None) -> Live:
        """Find a live pipeline that has stages; it needs no index.

        Parameters
        ----------
        name
            A name or an alias; None for the default, or the first with stages if the default has none.

        Returns
        -------
        Live
            Ready to rerank.

        Raises
        ------
        NotFoundError
            If nothing goes by that name.
        InvalidInputError
            If it only retrieves.
        NotReadyError
            If it is not live.
        """
        return self._find(self._choose(name, part="stages", act="rerank"))

    def states(self) -> dict[str, dict[str, object]]:
        """Say of every pipeline what it can do now, and why not more."""
        return {name: self._state(name) for name in self.source.names}

    async def check(self) -> None:
        """Make sure that the service can answer as it did when it started.

        Raises
        ------
        NotReadyError
            If the default pipeline is not live, or golden scores of any have moved.
        """
        self._find(self.source.default)
        async with self._check_lock:
            if time.monotonic() - self._checked_at < self._golden_interval_s:
                return
            for name, live in list(self._live.items()):
                await self._check_golden(name, live)
            self._checked_at = time.monotonic()

    def cards(self) -> list[tuple[ModelCard, bool]]:
        """Cards of the models on disk, and whether each is the live version."""
        return ModelRegistry(self.source.models_dir).cards()

    async def _refresh(self, name: str) -> None:
        known, failure = self._live.get(name), self._failures.get(name)
        if failure is not None and not failure.may_pass:
            return
        try:
            pipeline = await asyncio.to_thread(self._open, name)
            if known is not None:
                self._live[name] = replace(known, pipeline=pipeline)
                return
            golden = await self._golden_scores(pipeline) if pipeline.stages else None
            self._live[name] = Live(pipeline, await asyncio.to_thread(self._version, name), golden)
            self._failures.pop(name, None)
        except (NotReadyError, NotFoundError, OverloadedError, DeadlineError) as error:
            self._failures[name] = _Failure(str(error), may_pass=True)
        except Exception as error:
            logger.error("pipeline %r cannot be opened", name, exc_info=error)
            self._failures[name] = _Failure(str(error), may_pass=False)

    def _open(self, name: str) -> Pipeline:
        try:
            return self.source.open(name)
        except NotReadyError as error:
            if not self.source.describe(name)["stages"]:
                raise
            return self.source.open(name, retriever=_NoIndex(str(error)))

    def _version(self, name: str) -> str:
        """Name what orders documents: the pipeline, and a digest of its configuration and of the live models."""
        models = [asdict(card) for card, live in self.cards() if live]
        content = json.dumps([self.source.describe(name), models], sort_keys=True, default=str)
        return f"{name}@{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def _choose(self, name: str | None, *, part: str, act: str) -> str:
        able = [other for other in self.source.names if self.source.describe(other)[part]]
        chosen = self.source.resolve(name)
        if chosen in able:
            return chosen
        if name is None and able:
            return able[0]
        raise InvalidInputError(
            f"model is {chosen!r}, which cannot {act}; these can: {', '.join(able) or 'none'}", field="model"
        )

    def _find(self, name: str) -> Live:
        if name in self._live:
            return self._live[name]
        if failure := self._failures.get(name):
            raise NotReadyError(f"pipeline {name!r} is not live: {failure.reason}")
        raise NotReadyError(f"pipeline {name!r} is still being loaded; try again in a few seconds")

    def _state(self, name: str) -> dict[str, object]:
        live, failure = self._live.get(name), self._failures.get(name)
        if live is None:
            return {"search": False, "rerank": False, "reason": failure.reason if failure else "still being loaded"}
        searches = live.pipeline.retriever is not None and live.missing is None
        return {"search": searches, "rerank": bool(live.pipeline.stages), "reason": live.missing}

    async def _golden_scores(self, pipeline: Pipeline) -> dict[str, float]:
        result = await self._engine.rerank(pipeline, GOLDEN)
        if result.degraded_reason:
            raise ConfigError(f"pipeline {pipeline.name!r} fails: {result.degraded_reason}")
        return dict(zip(result.ranking.ids, unit_scores(result.ranking), strict=True))

    async def _check_golden(self, name: str, live: Live) -> None:
        if live.golden is None:
            return
        try:
            scores = await self._golden_scores(live.pipeline)
        except OverloadedError:  # too busy to be checked is not broken
            return
        except ShortlistError as error:
            raise NotReadyError(f"pipeline {name!r} does not answer: {error}") from error
        moved = max(abs(scores[document_id] - score) for document_id, score in live.golden.items())
        if moved > GOLDEN_TOLERANCE:
            raise NotReadyError(
                f"golden scores of pipeline {name!r} moved by {moved:.3f} since it was loaded, allowed are "
                f"{GOLDEN_TOLERANCE}; restart the service"
            )

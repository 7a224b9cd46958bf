"""Which pipelines are live: opened in the background, checked now and then, and exchanged while they serve.

A new index is taken over as it is. A pipeline that has a new version of a model is opened beside the one that serves,
has to order the golden documents, and only then takes its place: by one assignment, so a request runs either the one or
the other. Requests under way keep the one they have begun with. A version that does not get that far changes nothing,
and is not tried again before the registry names another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from rankers.pipeline import INTERLEAVE, Pipeline, Stage
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
        self,
        name: str | None = None,
        *,
        index: Path | None = None,
        retriever: Retriever | None = None,
        stages: Sequence[Stage] | None = None,
    ) -> Pipeline:
        """Open a pipeline, over the newest index, with the models that are live; cheap when nothing has changed."""
        ...

    def describe(self, name: str) -> dict[str, object]:
        """Say what it is made of; ``retriever``, ``stages`` and ``interleave`` (two names or None) are keys."""
        ...

    def models(self, name: str) -> Mapping[str, str]:
        """Versions of the registry it would be opened with now, ``name@version`` by stage; loads nothing."""
        ...

    def release(self, in_use: Collection[str]) -> None:
        """Let go of every version of the registry but these; whoever runs one keeps it until they are done."""
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
    """A pipeline that answers.

    `golden` are its scores of the golden documents; None where it only retrieves, or interleaves others that have their
    own. `version` names the pipeline and has a digest of its configuration and models.
    """

    pipeline: Pipeline
    version: str
    golden: Mapping[str, float] | None

    def version_after(self, stage: str) -> str:
        """Name what produced an order: the version, the last stage that had its say, and the model of that stage.

        ``search@1f2e3d4c5b6a/ltr:ranker@v3``; the order of an interleaved pipeline is the work of all its models.
        """
        models = self.pipeline.models
        if stage == INTERLEAVE:
            stage = "+".join(f"{own}:{model}" for own, model in models.items()) or stage
        elif stage in models:
            stage = f"{stage}:{models[stage]}"
        return f"{self.version}/{stage}"

    @property
    def missing(self) -> str | None:
        """Why it cannot search, though it should; one arm that can is enough."""
        retrievers = [arm.retriever for arm in self.pipeline.arms or (self.pipeline,)]
        reasons = [one.reason for one in retrievers if isinstance(one, _NoIndex)]
        return reasons[0] if len(reasons) == len(retrievers) else None


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a pipeline could not be opened with these models."""

    reason: str
    may_pass: bool
    models: Mapping[str, str]


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
        """Open every pipeline, then look for new indexes and models until cancelled; requests never wait for it."""
        plain = [name for name in self.source.names if not self._arms(name)]
        while True:
            for name in plain:
                await self._refresh(name)
            for name in self.source.names:
                if arms := self._arms(name):
                    self._interleave(name, arms)
            waiting = [failure.models for failure in self._failures.values() if failure.may_pass]
            used = [*(live.pipeline.models for live in self._live.values()), *waiting]
            await asyncio.to_thread(self.source.release, {label for models in used for label in models.values()})
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
        models: Mapping[str, str] = {}
        try:
            models = await asyncio.to_thread(self.source.models, name)
            failure = self._failures.get(name)
            if failure is None or failure.may_pass or failure.models != models:
                pipeline = await asyncio.to_thread(self._open, name, None)
                await self._take_over(name, pipeline)
                self._failures.pop(name, None)
        except Exception as error:
            if await asyncio.to_thread(self._has_moved, name, models):
                return  # what failed is not what was looked up; the next look sees both
            if isinstance(error, NotReadyError | NotFoundError | OverloadedError | DeadlineError):
                self._fail(name, _Failure(str(error), may_pass=True, models=models))
            else:
                if not isinstance(error, ShortlistError):
                    logger.error("pipeline %r cannot be opened", name, exc_info=error)
                self._fail(name, _Failure(str(error), may_pass=False, models=models))
        if name in self._failures and name in self._live:
            await self._refresh_index(name, self._live[name])

    def _has_moved(self, name: str, models: Mapping[str, str]) -> bool:
        """Whether the registry names other models by now."""
        try:
            return self.source.models(name) != models
        except ShortlistError:
            return False

    async def _refresh_index(self, name: str, live: Live) -> None:
        """Bring the newest index to stages that serve although the registry names others."""
        try:
            pipeline = await asyncio.to_thread(self._open, name, live.pipeline.stages)
            await self._take_over(name, pipeline)
        except Exception as error:  # that the pipeline cannot be opened is known; what serves goes on
            logger.debug("pipeline %r keeps its index", name, exc_info=error)

    async def _take_over(self, name: str, pipeline: Pipeline) -> None:
        known = self._live.get(name)
        if known is not None and known.pipeline.models == pipeline.models:
            self._live[name] = replace(known, pipeline=pipeline)
        else:
            golden = await self._golden_scores(pipeline) if pipeline.stages else None
            self._live[name] = Live(pipeline, self._version(name, pipeline), golden)
            if known is not None:
                logger.info("pipeline %r now runs %s", name, _listed(pipeline.models))

    def _interleave(self, name: str, arms: Sequence[str]) -> None:
        """Interleave the pipelines that are live, so that an arm runs what it runs by itself."""
        try:
            pipeline = Pipeline(name, arms=tuple(self._find(arm).pipeline for arm in arms))
        except NotReadyError as error:
            self._fail(name, _Failure(str(error), may_pass=True, models={}))
        else:
            self._live[name] = Live(pipeline, self._version(name, pipeline), None)
            self._failures.pop(name, None)

    def _fail(self, name: str, failure: _Failure) -> None:
        """Keep what serves; say once why it is not what the registry names."""
        if self._failures.get(name) != failure:
            live = self._live.get(name)
            kept = f"{_listed(live.pipeline.models)} goes on serving" if live is not None else "it is not live"
            log = logger.warning if failure.may_pass and live is None else logger.error
            log("pipeline %r cannot be opened with %s, %s: %s", name, _listed(failure.models), kept, failure.reason)
        self._failures[name] = failure

    def _open(self, name: str, stages: Sequence[Stage] | None) -> Pipeline:
        try:
            return self.source.open(name, stages=stages)
        except NotReadyError as error:
            if not self.source.describe(name)["stages"]:
                raise
            return self.source.open(name, retriever=_NoIndex(str(error)), stages=stages)

    def _version(self, name: str, pipeline: Pipeline) -> str:
        """Name what orders documents: the pipeline, and a digest of its configuration and of its models."""
        described = [self.source.describe(part) for part in (name, *self._arms(name))]
        content = json.dumps([described, pipeline.models], sort_keys=True, default=str)
        return f"{name}@{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def _arms(self, name: str) -> Sequence[str]:
        arms = self.source.describe(name).get("interleave")
        return [str(arm) for arm in arms] if isinstance(arms, Sequence) else []

    def _able(self, name: str, part: str) -> bool:
        arms = self._arms(name)
        return all(self._able(arm, part) for arm in arms) if arms else bool(self.source.describe(name)[part])

    def _choose(self, name: str | None, *, part: str, act: str) -> str:
        able = [other for other in self.source.names if self._able(other, part)]
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
            reason = failure.reason if failure else "still being loaded"
            return {"search": False, "rerank": False, "reason": reason, "models": {}}
        rejected = f"{_listed(failure.models)} was not taken over: {failure.reason}" if failure is not None else None
        return {
            "search": live.pipeline.searches and live.missing is None,
            "rerank": live.pipeline.reranks,
            "reason": live.missing or rejected,
            "models": dict(live.pipeline.models),
        }

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


def _listed(models: Mapping[str, str]) -> str:
    return ", ".join(f"{stage}:{label}" for stage, label in models.items()) or "its models"

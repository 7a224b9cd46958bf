"""Pipelines named in ``shortlist.yaml``, opened on demand.

This lives in `index` because that is the lowest package that knows both retrievers and rankers; the service and the
evaluation open the same pipelines through it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from index.directory import IndexDirectory
from index.manifest import Manifest
from index.stages import ModelSource, StageSpec, find_model, load_ranker
from rankers.errors import ConfigError, NotFoundError, ShortlistError
from rankers.fusion import reciprocal_rank_fusion, weighted_fusion
from rankers.pipeline import RETRIEVE, Pipeline, Stage
from rankers.protocols import Retriever
from rankers.sources import resolve_model
from rankers.types import Ranking

if TYPE_CHECKING:
    from index.encoders import Encoder

T = TypeVar("T")


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BM25Spec(_Spec):
    """Retrieve by BM25."""

    kind: Literal["bm25"]


class DenseSpec(_Spec):
    """Retrieve by nearest vectors; `recall` is the share of the true nearest to find, where the index is tuned."""

    kind: Literal["dense"]
    recall: float | None = Field(None, gt=0, le=1)


class HybridSpec(_Spec):
    """Retrieve by both and fuse: `depth` candidates from each, reciprocal ranks or weighted (lexical, dense) scores."""

    kind: Literal["hybrid"]
    fusion: Literal["rrf", "weighted"] = "rrf"
    weights: tuple[float, float] | None = None
    depth: int = Field(100, ge=1)
    recall: float | None = Field(None, gt=0, le=1)


class FeedbackSpec(_Spec):
    """Retrieve by nearest vectors, let stages teach the query's vector, retrieve again: see `index.feedback`."""

    kind: Literal["feedback"]
    by_scores: StageSpec | None = None
    by_order: StageSpec | None = None
    temperature: float = Field(0.05, gt=0)
    recall: float | None = Field(None, gt=0, le=1)

    @property
    def teachers(self) -> dict[str, StageSpec]:
        """The stages that teach, by role."""
        roles = {"by_scores": self.by_scores, "by_order": self.by_order}
        return {role: stage for role, stage in roles.items() if stage is not None}


AnyRetrieverSpec = BM25Spec | DenseSpec | HybridSpec | FeedbackSpec
RetrieverSpec = Annotated[AnyRetrieverSpec, Field(discriminator="kind")]


class PipelineSpec(_Spec):
    """One pipeline; without a retriever it only reranks. Or two pipelines by name, whose rankings are interleaved."""

    retriever: RetrieverSpec | None = None
    stages: tuple[StageSpec, ...] = ()
    interleave: tuple[str, str] | None = None

    @model_validator(mode="after")
    def _interleaves_or_has_parts(self) -> PipelineSpec:
        if self.interleave and (self.retriever or self.stages or len(set(self.interleave)) < 2):
            raise ValueError(
                f"interleave is {list(self.interleave)}; it takes two different pipelines, and no retriever or stages "
                "beside them"
            )
        return self


class PipelinesSpec(_Spec):
    """The whole file."""

    index: Path = Path("var/index")
    models_dir: Path = Path("var/models")
    encoder: str = "minilm"
    default: str
    aliases: Mapping[str, str] = {}
    pipelines: Mapping[str, PipelineSpec] = Field(min_length=1)


def load_pipelines(path: Path) -> Pipelines:
    """Read a configuration; nothing is opened yet.

    Parameters
    ----------
    path
        A YAML file. Relative paths in it are relative to its folder.

    Returns
    -------
    Pipelines
        What the file names.

    Raises
    ------
    ConfigError
        If the file is missing or says something that cannot be; the message names the entry.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}; run: shortlist init, or name one with --config") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    try:
        spec = PipelinesSpec.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    named = {"default": spec.default, **{f"aliases.{alias}": name for alias, name in spec.aliases.items()}}
    for entry, name in named.items():
        if name not in spec.pipelines:
            raise ConfigError(f"{path}: {entry} is {name!r}, which is not one of {', '.join(spec.pipelines)}")
    plain = [name for name, pipeline in spec.pipelines.items() if pipeline.interleave is None]
    for entry, pipeline in spec.pipelines.items():
        for arm in pipeline.interleave or ():
            if arm not in plain:
                raise ConfigError(
                    f"{path}: pipelines.{entry}.interleave has {arm!r}, which is not one of {', '.join(plain)}"
                )
    return Pipelines(spec, path.parent)


def _explain(error: ValidationError) -> str:
    details = (f"{'.'.join(map(str, e['loc'])) or 'the file'} is {e['input']!r}: {e['msg']}" for e in error.errors())
    return "; ".join(details)


class Pipelines:
    """Opens pipelines by name. What two of them use, an index or a model, is loaded once.

    A pipeline opened again after `shortlist index build`, `add` or `delete` has finished runs over the new index; after
    another version of one of its models has become live, it runs that one. Pipelines opened before go on as they were.

    Parameters
    ----------
    spec
        A checked configuration.
    folder
        What its relative paths are relative to.
    """

    def __init__(self, spec: PipelinesSpec, folder: Path) -> None:
        self.spec = spec
        self.index_dir = folder / spec.index
        self.models_dir = folder / spec.models_dir
        self._opened: dict[tuple[object, ...], Any] = {}
        self._models: dict[ModelSource, dict[tuple[object, ...], Any]] = {}
        self._closables: list[Any] = []
        self._versions: dict[Path, object] = {}
        self._lock = threading.RLock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all pipelines, as in the file."""
        return tuple(self.spec.pipelines)

    @property
    def default(self) -> str:
        """Name of the pipeline that serves requests which name none."""
        return self.spec.default

    @property
    def aliases(self) -> Mapping[str, str]:
        """Other names, and the pipelines they stand for."""
        return self.spec.aliases

    def resolve(self, name: str | None) -> str:
        """Turn a name, an alias or None into the name of a pipeline.

        Parameters
        ----------
        name
            What the caller asked for; None for the default.

        Returns
        -------
        str
            One of `names`.

        Raises
        ------
        NotFoundError
            If nothing goes by that name; the message lists what does.
        """
        chosen = self.spec.aliases.get(name, name) if name is not None else self.spec.default
        if chosen not in self.spec.pipelines:
            raise NotFoundError(f"no pipeline or model {name!r}; there are: {', '.join((*self.names, *self.aliases))}")
        return chosen

    def describe(self, name: str) -> dict[str, object]:
        """Say what a pipeline is made of, ready for JSON."""
        return {"name": name, **self.spec.pipelines[self.resolve(name)].model_dump(mode="json")}

    def models(self, name: str) -> dict[str, str]:
        """Versions of the registry the pipeline would be opened with now, by the names `Pipeline.models` has for them.

        Nothing is loaded.
        """
        spec = self.spec.pipelines[self.resolve(name)]
        stages = {stage.name: stage for stage in spec.stages}
        if isinstance(spec.retriever, FeedbackSpec):
            stages |= {f"{RETRIEVE}/{role}": stage for role, stage in spec.retriever.teachers.items()}
        found = {role: find_model(stage, models_dir=self.models_dir).label for role, stage in stages.items()}
        arms = {f"{arm}/{stage}": label for arm in spec.interleave or () for stage, label in self.models(arm).items()}
        return {role: label for role, label in found.items() if label} | arms

    def release(self, in_use: Collection[str]) -> None:
        """Let go of models of the registry; whoever still runs one keeps it until they are done.

        Parameters
        ----------
        in_use
            The versions not to let go of, as ``name@version``.
        """
        with self._lock:
            for source in [source for source in self._models if source.label and source.label not in in_use]:
                del self._models[source]

    def needs_dense(self, name: str) -> str | None:
        """Name of the encoder a pipeline's index must have been built with, None if it needs no vectors."""
        spec = self.spec.pipelines[self.resolve(name)]
        arms = [self.needs_dense(arm) for arm in spec.interleave or ()]
        dense = isinstance(spec.retriever, DenseSpec | HybridSpec | FeedbackSpec) or any(arms)
        return self.spec.encoder if dense else None

    def encoder(self) -> Encoder:
        """The encoder of the configuration, loaded."""
        return self._once(("encoder", self.spec.encoder), self._load_encoder)

    def open(
        self,
        name: str | None = None,
        *,
        index: Path | None = None,
        retriever: Retriever | None = None,
        stages: Sequence[Stage] | None = None,
        calibrated: bool = True,
    ) -> Pipeline:
        """Open a pipeline; models and indexes load on first use.

        Parameters
        ----------
        name
            A pipeline, an alias, or None for the default.
        index
            An index directory instead of the configured one.
        retriever
            A first stage instead of the configured one.
        stages
            Stages opened before, instead of what the configuration and the registry say now.
        calibrated
            Whether the last stage is calibrated, if it says so; no is for fitting its calibration anew.

        Returns
        -------
        Pipeline
            Ready to run.

        Raises
        ------
        NotFoundError
            If a name, a model, its calibration or the index does not exist.
        ConfigError
            If the index was built with another encoder.
        """
        name = self.resolve(name)
        spec = self.spec.pipelines[name]
        if spec.interleave is not None:
            arms = tuple(self.open(arm, index=index, retriever=retriever) for arm in spec.interleave)
            return Pipeline(name, arms=arms)
        with self._lock:
            if retriever is None and spec.retriever is not None:
                retriever = self._newest_retriever(spec.retriever, index or self.index_dir)
            opened = tuple(stages) if stages is not None else self._stages(spec.stages, calibrated=calibrated)
        return Pipeline(name, retriever, opened)

    def close(self) -> None:
        """Close the connections of models that run on servers; nothing opened here may be used after it."""
        with self._lock:
            for model in self._closables:
                model.close()
            self._closables.clear()
            self._opened.clear()
            self._models.clear()

    def _once(self, key: tuple[object, ...], load: Callable[[], T]) -> T:
        with self._lock:
            return _remembered(self._opened, key, load)

    def _stages(self, specs: Sequence[StageSpec], *, calibrated: bool) -> tuple[Stage, ...]:
        if specs and not calibrated:
            specs = (*specs[:-1], specs[-1].model_copy(update={"calibration": None}))
        return tuple(self._stage(spec) for spec in specs)

    def _stage(self, spec: StageSpec) -> Stage:
        source = find_model(spec, models_dir=self.models_dir)
        loaded = self._models.setdefault(source, {})

        def once(key: tuple[Hashable, ...], load: Callable[[], T]) -> T:
            if key[0] == "encoder":  # which queries use too
                return self._once(key, load)
            new = key not in loaded
            opened = _remembered(loaded, key, load)
            if new and key[0] == "llm" and hasattr(opened, "close"):
                # Connections to a server: requests may use them for as long as anything is opened here.
                self._closables.append(opened)
            return opened

        ranker = once(("ranker", spec), lambda: load_ranker(spec, source, models_dir=self.models_dir, once=once))
        return Stage(spec.name, ranker, spec.depth, model=source.label)

    def _newest_retriever(self, spec: AnyRetrieverSpec, root: Path) -> Retriever:
        """Open a retriever, all of its parts over the version that is current."""
        directory = self._once(("index", root), partial(IndexDirectory, root))
        while True:
            manifest = directory.manifest()
            if self._versions.get(root) != manifest:
                # Whoever still uses a retriever of the older version keeps it; we only stop handing it out.
                self._opened = {key: value for key, value in self._opened.items() if key[:2] != ("retriever", root)}
                self._versions[root] = manifest
            try:
                return self._retriever(spec, root, manifest)
            except (OSError, RuntimeError, ShortlistError):
                if directory.manifest() == manifest:
                    raise
                # Newer versions came meanwhile, and this one's files went.

    def _retriever(self, spec: AnyRetrieverSpec, root: Path, manifest: Manifest) -> Retriever:
        if isinstance(spec, FeedbackSpec):
            return self._feedback(spec, root, manifest)  # anew every time: other versions of its models may be live
        return self._once(("retriever", root, spec), partial(self._load_retriever, spec, root, manifest))

    def _load_retriever(self, spec: BM25Spec | DenseSpec | HybridSpec, root: Path, manifest: Manifest) -> Retriever:
        from index import retrievers
        from index.hybrid import HybridRetriever

        directory = self._once(("index", root), partial(IndexDirectory, root))
        if isinstance(spec, BM25Spec):
            return retrievers.BM25Retriever(directory.open_bm25(manifest), directory.corpus)
        if isinstance(spec, DenseSpec):
            vectors, built_with = directory.open_dense(manifest), manifest.encoder
            if built_with != self.spec.encoder:
                raise ConfigError(
                    f"the index at {root} has vectors of {built_with!r}, the configuration says encoder "
                    f"{self.spec.encoder!r}; build it again with: shortlist index build"
                )
            return retrievers.DenseRetriever(vectors, self.encoder(), directory.corpus, recall=spec.recall)
        parts = (BM25Spec(kind="bm25"), DenseSpec(kind="dense", recall=spec.recall))
        both = [self._retriever(part, root, manifest) for part in parts]
        return HybridRetriever(both, _fusion(spec), depth=spec.depth)

    def _feedback(self, spec: FeedbackSpec, root: Path, manifest: Manifest) -> Retriever:
        from index.feedback import FeedbackRetriever
        from index.retrievers import DenseRetriever

        dense = self._retriever(DenseSpec(kind="dense", recall=spec.recall), root, manifest)
        stages = {role: self._stage(stage) for role, stage in spec.teachers.items()}
        return FeedbackRetriever(cast(DenseRetriever, dense), temperature=spec.temperature, **stages)

    def _load_encoder(self) -> Encoder:
        from index.encoders import Encoder

        return Encoder(resolve_model(self.spec.encoder, models_dir=self.models_dir))


def _remembered(loaded: dict[tuple[object, ...], Any], key: tuple[object, ...], load: Callable[[], T]) -> T:
    if key not in loaded:
        loaded[key] = load()
    found: T = loaded[key]
    return found


def _fusion(spec: HybridSpec) -> Callable[[Sequence[Ranking]], Ranking]:
    fuse = reciprocal_rank_fusion if spec.fusion == "rrf" else weighted_fusion
    return partial(fuse, weights=spec.weights)

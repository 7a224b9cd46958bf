"""Stages as ``shortlist.yaml`` names them, and the rankers they stand for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from rankers.calibration import CALIBRATION_FILE, CalibratedRanker, Calibration
from rankers.errors import ConfigError, NotFoundError
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.readers.generate import GenerateReader
from rankers.listwise.readers.grades import GradesReader
from rankers.listwise.readers.reasoning import ReasoningReader
from rankers.listwise.readers.setwise import SetwiseReader
from rankers.listwise.strategies.blocks import Blocks
from rankers.listwise.strategies.elimination import Elimination
from rankers.listwise.strategies.groupwise import Groupwise
from rankers.listwise.strategies.heap import Heap
from rankers.listwise.strategies.single import Single
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.strategies.tournament import Tournament
from rankers.listwise.windows import Reader, Strategy, check_pair
from rankers.protocols import Ranker
from rankers.registry import ModelRegistry
from rankers.sources import resolve_model

if TYPE_CHECKING:
    from rankers.llm.chat_engine import ChatEngine
    from rankers.llm.completions_engine import CompletionsEngine
    from rankers.llm.transformers_engine import TransformersEngine

T = TypeVar("T")

STRATEGIES: dict[str, type[Strategy]] = {
    "single": Single,
    "sliding": Sliding,
    "tournament": Tournament,
    "blocks": Blocks,
    "heap": Heap,
    "elimination": Elimination,
    "groupwise": Groupwise,
}
READERS: dict[str, tuple[type[Reader], str]] = {
    "first-token": (FirstTokenReader, "first"),
    "setwise": (SetwiseReader, "setwise"),
    "generate": (GenerateReader, "rank_zephyr"),
    "reasoning": (ReasoningReader, "reasoning"),
    "grades": (GradesReader, "group_grades"),
}
"""Readers, and the template each is used with unless another is named."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StrategySpec(BaseModel):
    """A window strategy by name, with the parameters of its class in `rankers.listwise.strategies`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Literal["single", "sliding", "tournament", "blocks", "heap", "elimination", "groupwise"] = "sliding"

    @model_validator(mode="after")
    def _can_be_built(self) -> StrategySpec:
        try:
            self.build()
        except (ConfigError, ValidationError) as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> Strategy:
        """Make the strategy."""
        strategy = STRATEGIES[self.kind]
        parameters = self.model_extra or {}
        known = [field.name for field in dataclasses.fields(strategy)]  # type: ignore[arg-type]
        unknown = set(parameters) - set(known)
        if unknown:
            raise ConfigError(f"strategy {self.kind!r} has no {min(unknown)!r}; it has {', '.join(known) or 'nothing'}")
        return TypeAdapter(strategy).validate_python(parameters)


class ServerSpec(_Spec):
    """A server that runs the model: `completions` speaks token ids (vLLM), `chat` is a hosted API.

    Only for `chat`: `prefill`, `budget_field` (`max_tokens` for servers that do not know the newer name) and
    `temperature` (null for models that refuse to be told).
    """

    kind: Literal["completions", "chat"]
    url: str
    model: str
    api_key_variable: str | None = None
    timeout_s: float = Field(60.0, gt=0)
    max_in_flight: int = Field(8, ge=1)
    context_tokens: int | None = Field(None, ge=1)
    prefill: bool = False
    budget_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: float | None = 0.0

    @model_validator(mode="after")
    def _only_chat_has_chat_options(self) -> ServerSpec:
        chat = {"prefill", "budget_field", "temperature"} & self.model_fields_set
        if chat and self.kind != "chat":
            raise ValueError(f"{min(chat)} is an option of chat servers, this is a {self.kind} server; leave it out")
        return self

    @property
    def api_key(self) -> str | None:
        """Value of the environment variable that holds the key."""
        if self.api_key_variable is None:
            return None
        key = os.environ.get(self.api_key_variable)
        if not key:
            raise ConfigError(f"the API key for {self.url} is read from {self.api_key_variable}, which is not set")
        return key


class _StageSpec(_Spec):
    """What any stage may say.

    `excerpt_words` cuts longer documents to the sentences that share most with the query. `both_orders` ranks every
    list as it comes and reversed, and orders by the mean of the two ranks. `incoming_weight` is the share that the
    incoming scores have in the stage's. `calibration` makes the scores probabilities: true for the one that lies with
    the live version of the model, or a file, relative to the model registry.
    """

    model: str
    excerpt_words: int | None = Field(None, ge=1)
    both_orders: bool = False
    incoming_weight: float = Field(0.0, ge=0, lt=1)
    calibration: Literal[True] | Path | None = None


class _LanguageModelSpec(_StageSpec):
    """A stage that asks a language model: in this process, or on a server whose tokenizer `model` is."""

    server: ServerSpec | None = None
    device: str | None = None
    dtype: str = "auto"
    max_batch_tokens: int | None = Field(None, ge=1)
    passage_tokens: int = Field(100, ge=1)

    @property
    def reads_logits(self) -> bool:
        """Whether the model is asked for numbers and not for text."""
        return True

    @model_validator(mode="after")
    def _server_gives_what_is_read(self) -> Self:
        if self.server is not None and self.server.kind == "chat" and self.reads_logits:
            raise ValueError(
                "chat servers give no logits, which this stage reads; use a completions server, or a listwise stage "
                "with reader generate, reasoning or grades"
            )
        return self


class ListwiseSpec(_LanguageModelSpec):
    """Reorder windows of documents with a language model; without more, FIRST in sliding windows."""

    kind: Literal["listwise"]
    name: str = "first"
    depth: int = Field(20, ge=1)
    strategy: StrategySpec = StrategySpec()
    reader: Literal["first-token", "setwise", "generate", "reasoning", "grades"] = "first-token"
    template: str | None = None
    max_new_tokens: int | None = Field(None, ge=1)
    global_scores: Literal["bradley-terry", "average"] | None = None

    @property
    def reads_logits(self) -> bool:
        """Whether the reader does."""
        return issubclass(READERS[self.reader][0], FirstTokenReader)

    @model_validator(mode="after")
    def _strategy_and_reader_fit(self) -> ListwiseSpec:
        reader, _ = READERS[self.reader]
        try:
            check_pair(self.strategy.build(), reader)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.max_new_tokens is not None and self.reads_logits:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}, but reader {self.reader!r} writes nothing")
        return self


class YesNoSpec(_LanguageModelSpec):
    """Reorder by the log-odds that a language model says yes, one document at a time."""

    kind: Literal["yes-no"]
    name: str = "yes-no"
    depth: int = Field(20, ge=1)
    template: str = "mono_t5"


class QueryLikelihoodSpec(_LanguageModelSpec):
    """Reorder by how probable the query is, given the document."""

    kind: Literal["query-likelihood"]
    name: str = "query-likelihood"
    depth: int = Field(20, ge=1)
    template: str = "query_likelihood"


class PairwiseSpec(_LanguageModelSpec):
    """Reorder by comparing two documents at a time, in both orders.

    `examples` is a file of preferences of other queries, JSON lines with ``query``, ``preferred`` and ``other``; those
    of the `shots` most similar queries are shown first.
    """

    kind: Literal["pairwise"]
    name: str = "pairwise"
    depth: int = Field(20, ge=1)
    strategy: Literal["all-pairs", "heap", "sliding"] = "sliding"
    k: int = Field(10, ge=1)
    template: str = "prp"
    examples: Path | None = None
    shots: int = Field(2, ge=1)


class CrossEncoderSpec(_StageSpec):
    """Reorder by the scores of a cross-encoder, one document at a time."""

    kind: Literal["cross-encoder"]
    name: str = "cross-encoder"
    depth: int = Field(50, ge=1)
    max_tokens: int = Field(512, ge=8)
    device: str | None = None


class LateInteractionSpec(_StageSpec):
    """Reorder by MaxSim over token vectors."""

    kind: Literal["late-interaction"]
    name: str = "late-interaction"
    depth: int = Field(50, ge=1)
    device: str | None = None
    prune: float | None = Field(None, gt=0, le=1)


class LtrSpec(_StageSpec):
    """Reorder by a model learned over features; before a version of it is live, the incoming order is kept.

    `feature_set` is the name of a packaged set or a YAML file.
    """

    kind: Literal["ltr"]
    name: str = "ltr"
    depth: int = Field(100, ge=1)
    feature_set: str = "default"

    @model_validator(mode="after")
    def _as_it_comes(self) -> LtrSpec:
        if self.both_orders:
            raise ValueError("both_orders shows lists reversed, and ranks are features of this stage; leave it out")
        if self.excerpt_words is not None:
            raise ValueError("excerpt_words cuts texts, and features of this stage count them whole; leave it out")
        return self


StageSpec = Annotated[
    ListwiseSpec | YesNoSpec | QueryLikelihoodSpec | PairwiseSpec | CrossEncoderSpec | LateInteractionSpec | LtrSpec,
    Field(discriminator="kind"),
]


class Once(Protocol):
    """Remembers what has been loaded."""

    def __call__(self, key: tuple[Hashable, ...], load: Callable[[], T]) -> T:
        """Load what the key names, or give what was loaded for it."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the model of a stage is now: what loads it, and its name in the registry or nothing.

    `path` is a folder or a hub name; empty for a learned ranker that has no live version.
    """

    path: str
    label: str


def find_model(spec: StageSpec, *, models_dir: Path) -> ModelSource:
    """Find the model of a stage without loading it; what is live in the registry may be another one every time.

    Parameters
    ----------
    spec
        From the configuration.
    models_dir
        The model registry.

    Returns
    -------
    ModelSource
        For `load_ranker`.

    Raises
    ------
    NotFoundError
        If nothing goes by that name.
    """
    registry = ModelRegistry(models_dir)
    if isinstance(spec, LtrSpec) and not Path(spec.model).is_dir():
        live = registry.live(spec.model)
        if live is None:
            return ModelSource("", "")
        path = str(live)
    elif isinstance(spec, _LanguageModelSpec) and spec.server is not None and spec.server.kind == "chat":
        return ModelSource(spec.model, "")  # nothing of it is loaded here
    else:
        path = resolve_model(spec.model, models_dir=models_dir)
    return ModelSource(path, registry.label(Path(path)) or "")


def calibration_path(spec: StageSpec, label: str, *, models_dir: Path) -> Path | None:
    """Say where the calibration of a stage lies, or belongs.

    Parameters
    ----------
    spec
        From the configuration.
    label
        Version of the registry that the stage runs, ``name@version``, or nothing.
    models_dir
        The model registry.

    Returns
    -------
    Path
        The file the stage names; otherwise one in the folder of the version, or None where there is no version.
    """
    if isinstance(spec.calibration, Path):
        return models_dir / spec.calibration
    return models_dir.joinpath(*label.split("@"), CALIBRATION_FILE) if label else None


def load_ranker(spec: StageSpec, source: ModelSource, *, models_dir: Path, once: Once) -> Ranker:
    """Make the ranker of a stage.

    Parameters
    ----------
    spec
        From the configuration.
    source
        From `find_model`.
    models_dir
        The model registry.
    once
        Stages that name the same model share it, and the scheduler of its windows.

    Returns
    -------
    Ranker
        Ready to rank.

    Raises
    ------
    NotFoundError
        If the model does not exist, or has no calibration although the stage says it has.
    ConfigError
        If it cannot be used as the stage says.
    """
    calibration = _load_calibration(spec, source, models_dir)
    if isinstance(spec, LtrSpec):
        from index.learned import load_learned

        ranker: Ranker = load_learned(spec, source, models_dir=models_dir, once=once)
    else:
        ranker = _load(spec, source.path, once)
    if spec.both_orders:
        from rankers.consistency import BothOrders

        ranker = BothOrders(ranker)
    if spec.excerpt_words is not None:
        from rankers.excerpts import ExcerptRanker

        ranker = ExcerptRanker(ranker, words=spec.excerpt_words)
    if spec.incoming_weight:
        from rankers.fused import FusedRanker

        ranker = FusedRanker(ranker, incoming_weight=spec.incoming_weight)
    if calibration is not None:
        ranker = CalibratedRanker(ranker, calibration)
    return ranker


def _load_calibration(spec: StageSpec, source: ModelSource, models_dir: Path) -> Calibration | None:
    """Load what makes the scores probabilities; refuse what was fitted on scores of another version."""
    if spec.calibration is None or not source.path:  # an order that was kept has no scores
        return None
    path = calibration_path(spec, source.label, models_dir=models_dir)
    if path is None:
        raise ConfigError(
            f"stage {spec.name!r} says calibration: true, but its model {spec.model!r} is not of the registry; name a "
            "file and write it with: shortlist calibrate --out FILE"
        )
    calibration = Calibration.load(path)
    if source.label and calibration.model != source.label:
        # Not a ConfigError: once there is one, the service takes it, and the version, without being told.
        raise NotFoundError(
            f"no calibration for {source.label}, which stage {spec.name!r} runs: {path} was fitted for "
            f"{calibration.model or 'a model that it does not name'}; fit one again: shortlist calibrate"
        )
    return calibration


def _load(
    spec: ListwiseSpec | YesNoSpec | QueryLikelihoodSpec | PairwiseSpec | CrossEncoderSpec | LateInteractionSpec,
    path: str,
    once: Once,
) -> Ranker:
    if isinstance(spec, CrossEncoderSpec):
        from rankers.pointwise import CrossEncoderScorer, PointwiseRanker

        scorer = CrossEncoderScorer(path, device=spec.device, max_tokens=spec.max_tokens)
        return PointwiseRanker(scorer, max_pair_tokens=spec.max_tokens)
    if isinstance(spec, LateInteractionSpec):
        from rankers.late_interaction import LateInteractionScorer
        from rankers.pointwise import PointwiseRanker
        from rankers.token_vectors import SentenceTransformerTokens

        return PointwiseRanker(
            LateInteractionScorer(SentenceTransformerTokens(path, device=spec.device), prune=spec.prune)
        )
    key = ("llm", path, spec.server, spec.device, spec.dtype, spec.max_batch_tokens)
    model: Any = once(key, partial(_load_model, spec, path))
    if isinstance(spec, ListwiseSpec):
        return _load_listwise(spec, model, key, once)
    if isinstance(spec, PairwiseSpec):
        from rankers.pair_strategies import AllPairs, HeapSort, PairStrategy, SlidingK
        from rankers.pairwise import PairwiseRanker
        from rankers.preferences import SimilarPreferences, read_preferences

        pairs: dict[str, PairStrategy] = {
            "all-pairs": AllPairs(),
            "heap": HeapSort(top_k=spec.k),
            "sliding": SlidingK(k=spec.k),
        }
        return PairwiseRanker(
            model,
            template=spec.template,
            strategy=pairs[spec.strategy],
            passage_tokens=spec.passage_tokens,
            examples=SimilarPreferences(read_preferences(spec.examples), count=spec.shots) if spec.examples else (),
        )
    from rankers.llm_scorers import QueryLikelihoodScorer, YesNoScorer
    from rankers.pointwise import PointwiseRanker

    kind = YesNoScorer if isinstance(spec, YesNoSpec) else QueryLikelihoodScorer
    return PointwiseRanker(kind(model, template=spec.template, passage_tokens=spec.passage_tokens))


def _load_model(spec: _LanguageModelSpec, path: str) -> TransformersEngine | CompletionsEngine | ChatEngine:
    server = spec.server
    if server is None:
        from rankers.llm.transformers_engine import TransformersEngine

        return TransformersEngine.load(
            path, device=spec.device, dtype=spec.dtype, max_batch_tokens=spec.max_batch_tokens
        )
    options: dict[str, Any] = {
        "model": server.model,
        "api_key": server.api_key,
        "timeout_s": server.timeout_s,
        "max_in_flight": server.max_in_flight,
        "context_tokens": server.context_tokens,
    }
    if server.kind == "completions":
        from rankers.llm.completions_engine import CompletionsEngine

        return CompletionsEngine(server.url, tokenizer=path, **options)
    from rankers.llm.chat_engine import ChatEngine

    return ChatEngine(
        server.url,
        prefill=server.prefill,
        budget_field=server.budget_field,
        extra={"temperature": server.temperature},
        **options,
    )


def _load_listwise(spec: ListwiseSpec, model: Any, model_key: tuple[Hashable, ...], once: Once) -> Ranker:
    from rankers.listwise.ranker import ListwiseRanker
    from rankers.listwise.scheduler import Scheduler
    from rankers.listwise.template import load_template

    kind, default_template = READERS[spec.reader]
    template = load_template(spec.template or default_template)
    options: dict[str, Any] = {}
    if kind is GenerateReader:
        options["answer_prefix"] = template.answer
    if spec.max_new_tokens is not None:
        options["max_new_tokens"] = spec.max_new_tokens
    # Windows meet in one batch where the scheduler and the reader are the same.
    scheduler = once(
        ("scheduler", *model_key),
        lambda: Scheduler(max_batch_tokens=model.max_batch_tokens),
    )
    reader = once(("reader", kind, *options.items(), *model_key), lambda: kind(model, **options))  # type: ignore[call-arg]
    return ListwiseRanker(
        model,
        template=template,
        strategy=spec.strategy.build(),
        reader=reader,
        passage_tokens=spec.passage_tokens,
        global_scores=spec.global_scores,
        scheduler=scheduler,
    )

"""Run one pipeline over inputs that have been disturbed, one table row per disturbance.

Every row is an ordinary evaluation of the pipeline's stages over candidates that were found once, so an interruption
costs a batch, and every run can be looked at. Reranking more documents can make a ranking worse: Jacob et al.,
"Drowning in Documents: Consequences of Scaling Reranker Inference", arXiv 2411.11767. LLMs may prefer what LLMs wrote:
Dai et al., "Neural Retrievers are Biased Towards LLM-Generated Content", KDD 2024.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from rankers.consistency import kendall_tau
from rankers.errors import InvalidInputError
from rankers.fusion import reciprocal_rank_fusion
from rankers.pipeline import Pipeline, Stage
from rankers.protocols import Retriever
from rankers.types import Document, Query, Ranking
from training.evaluation.datasets import Dataset
from training.evaluation.evaluation import evaluate
from training.evaluation.measures import check_measures, mean, measure_run
from training.evaluation.significance import Comparison, Interval, bootstrap_interval, compare
from training.robustness.attacks import ATTACKS, Attack, attacked, choose_victims, rank_changes, share_entering
from training.robustness.perturbations import (
    Orders,
    WordSubstitution,
    both_offered,
    rebuilt,
    rewritten,
    shares_above,
    shuffled,
    turned_round,
    with_typo,
)

Progress = Callable[[str, int, int], None]
"""Called with what is running, how many queries of all runs are done, and how many there are."""

CLEAN = "clean"
FAMILIES = ("depth", "order", "queries", "documents", "attacks")


@dataclass(frozen=True, slots=True)
class Settings:
    """What to do to a pipeline.

    `depth` is how many candidates are retrieved, `depths` are those the sweep reranks; `repeats` is how often each
    random disturbance is drawn; `substitution_rate` is the share of words replaced. `families` are those of `FAMILIES`
    whose rows are wanted; the clean row is always there.
    """

    measure: str = "nDCG@10"
    depth: int = 100
    depths: tuple[int, ...] = (5, 10, 20, 50, 100)
    repeats: int = 3
    substitution_rate: float = 0.1
    seed: int = 0
    batch_size: int = 32
    families: tuple[str, ...] = FAMILIES

    def __post_init__(self) -> None:
        for name in ("depth", "repeats", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}, must be at least 1", field=name)
        if not self.depths or min(self.depths) < 1:
            raise InvalidInputError(f"depths are {self.depths}, must be at least one, each at least 1", field="depths")
        if not 0 < self.substitution_rate <= 1:
            raise InvalidInputError(
                f"substitution_rate is {self.substitution_rate}, must be above 0 and at most 1",
                field="substitution_rate",
            )
        if self.seed < 0:
            raise InvalidInputError(f"seed is {self.seed}, must be at least 0", field="seed")
        if not self.families or not set(self.families) <= set(FAMILIES):
            raise InvalidInputError(
                f"families are {', '.join(self.families) or 'none'}, must be some of {', '.join(FAMILIES)}",
                field="families",
            )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    `values` is query id -> measure, the mean over `repeats`; empty, and `interval` and `comparison` None, where the
    measure has no meaning. `comparison` is against the clean run. `deviation` is the mean over queries of the standard
    deviation over repeats, None for one repeat. `figures` is what else there is to say, by name.
    """

    family: str
    name: str
    queries: int
    repeats: int
    values: Mapping[str, float]
    interval: Interval | None
    comparison: Comparison | None
    deviation: float | None
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Robustness:
    """The table; its first row is the clean run."""

    dataset: str
    pipeline: str
    queries: int
    settings: Settings
    rows: tuple[Row, ...]
    configuration: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Trial:
    """One row to be: the candidates of each repeat, made when it is their turn, and the stages they go through."""

    family: str
    name: str
    inputs: Mapping[str, Callable[[], list[Ranking]]]
    stages: tuple[Stage, ...]
    figures: Callable[[Sequence[Orders]], Mapping[str, float]] = lambda _: {}
    measured: bool = True


@dataclass(frozen=True, slots=True)
class _Given:
    """Rankings as a first stage."""

    rankings: Mapping[str, Ranking]

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        return [self.rankings[query.id].top(k) for query in queries]


def measure_robustness(
    pipeline: Pipeline,
    dataset: Dataset,
    folder: Path,
    *,
    settings: Settings | None = None,
    rewrites: Mapping[str, Document] | None = None,
    configuration: Mapping[str, object] | None = None,
    fresh: bool = False,
    on_progress: Progress | None = None,
) -> Robustness:
    """Disturb a pipeline in every way there is and measure what becomes of its rankings.

    Candidates are retrieved once; the stages then rerank them as they are and disturbed. Only the row ``typo,
    retrieved anew`` asks the retriever again. A pipeline without stages has that row and the clean one.

    Parameters
    ----------
    pipeline
        With a retriever, which may be a stored run.
    dataset
        Its queries are run; its documents, or else the candidates, give the words to substitute.
    folder
        Gets one TREC run per row and repeat; what is there already is gone on with.
    settings
        The defaults if not given.
    rewrites
        Document id -> the same document in other words; no such rows if not given.
    configuration
        What the pipeline is made of, for the record; a run is gone on with only if this is what it was.
    fresh
        Whether to start over in any case.
    on_progress
        Called after every batch.

    Returns
    -------
    Robustness
        Its table.

    Raises
    ------
    InvalidInputError
        If the pipeline has no retriever, nothing is retrieved, no candidate is rewritten, or the measure is unknown.
    """
    settings = settings or Settings()
    check_measures([settings.measure])
    if pipeline.retriever is None:
        raise InvalidInputError(f"pipeline {pipeline.name!r} has no retriever; give a first stage, such as a TREC run")
    depth = pipeline.retrieval_depth(settings.depth)
    first = pipeline.retriever.retrieve(dataset.queries, depth)
    if not any(first):
        raise InvalidInputError(
            f"the first stage of pipeline {pipeline.name!r} finds nothing for {len(first)} queries; do they belong "
            "to its index or run?"
        )
    bench = _Bench(pipeline.retriever, depth, pipeline.stages, dataset, first, settings, rewrites)
    trials = [trial for trial in bench.trials() if trial.family in (CLEAN, *settings.families)]
    runs_in_all = sum(len(trial.inputs) for trial in trials)
    rows: list[Row] = []
    runs_done = 0
    for trial in trials:
        for slug, make in trial.inputs.items():
            rankings = make()
            done_before = runs_done * len(first)

            def show(done: int, _: int, *, name: str = trial.name, before: int = done_before) -> None:
                if on_progress is not None:
                    on_progress(name, before + done, runs_in_all * len(first))

            evaluation = evaluate(
                Pipeline(slug, _Given({ranking.query.id: ranking for ranking in rankings}), trial.stages),
                dataset,
                folder / "runs",
                depth=max(1, *map(len, rankings)),
                batch_size=settings.batch_size,
                configuration={"pipeline": configuration or pipeline.name, "input": _digest(rankings)},
                fresh=fresh,
                on_progress=show,
            )
            bench.runs[slug] = evaluation.scores
            runs_done += 1
        rows.append(bench.row(trial, clean=rows[0] if rows else None))
    return Robustness(
        dataset.name, pipeline.name, len(dataset.queries), settings, tuple(rows), configuration=configuration or {}
    )


@dataclass
class _Bench:
    """A pipeline's parts, its candidates, and the runs so far, by the names of their files."""

    retriever: Retriever
    retrieval_depth: int
    stages: tuple[Stage, ...]
    dataset: Dataset
    first: Sequence[Ranking]
    settings: Settings
    rewrites: Mapping[str, Document] | None
    runs: dict[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def pool(self) -> int:
        """Candidates the first stage sees."""
        return self.stages[0].depth

    @cached_property
    def substitution(self) -> WordSubstitution:
        candidates = {document.id: document for ranking in self.first for document in ranking.documents}
        documents = self.dataset.documents() if self.dataset.documents is not None else candidates.values()
        return WordSubstitution(documents, rate=self.settings.substitution_rate)

    @cached_property
    def victims(self) -> dict[str, str]:
        heads = [ranking.top(self.pool) for ranking in self.first]
        return choose_victims(heads, self.orders(CLEAN), self.dataset.qrels, seed=self.settings.seed)

    def orders(self, slug: str) -> Orders:
        return {query_id: tuple(scores) for query_id, scores in self.runs[slug].items()}

    def trials(self) -> list[_Trial]:
        stages = self.stages
        again = partial(self._repeated, "typo-retrieved", self._retrieved_with_typos)
        clean = _Trial(CLEAN, CLEAN, {CLEAN: lambda: list(self.first)}, stages)
        retyped = _Trial("queries", "typo, retrieved anew", again(), stages)
        if not stages:
            return [clean, retyped]
        each = self._each
        trials = [
            clean,
            _Trial("depth", "first stage alone", {"first-stage": lambda: list(self.first)}, ()),
            *self._depth_trials(),
            _Trial(
                "order",
                "shuffled",
                self._repeated("shuffled", lambda seed: each(lambda r: shuffled(r, self.pool, seed=seed))),
                stages,
                self._consistency,
            ),
            _Trial(
                "order",
                "reversed",
                {"reversed": lambda: each(lambda r: turned_round(r, self.pool))},
                stages,
                self._consistency,
            ),
            _Trial(
                "queries",
                "typo, same candidates",
                self._repeated("typo", lambda seed: each(lambda r: rebuilt(r, query=with_typo(r.query, seed=seed)))),
                stages,
            ),
            retyped,
            _Trial(
                "documents",
                f"{self.settings.substitution_rate:.0%} of words substituted",
                self._repeated(
                    "substituted",
                    lambda seed: each(lambda r: rebuilt(r, change=partial(self.substitution, seed=seed))),
                ),
                stages,
            ),
        ]
        if self.rewrites is not None:
            trials += self._rewrite_trials(self.rewrites)
        return trials + [self._attack_trial(attack) for attack in ATTACKS]

    def row(self, trial: _Trial, clean: Row | None) -> Row:
        repeats = len(trial.inputs)
        figures = dict(trial.figures([self.orders(slug) for slug in trial.inputs]))
        if not trial.measured:
            queries = int(figures.pop("queries"))
            return Row(trial.family, trial.name, queries, repeats, {}, None, None, None, figures)
        measured = [
            measure_run(self.runs[slug], self.dataset.qrels, [self.settings.measure])[self.settings.measure]
            for slug in trial.inputs
        ]
        values = {query_id: mean({str(i): m[query_id] for i, m in enumerate(measured)}) for query_id in measured[0]}
        deviations = np.std([list(m.values()) for m in measured], axis=0, ddof=1) if repeats > 1 else None
        return Row(
            family=trial.family,
            name=trial.name,
            queries=len(values),
            repeats=repeats,
            values=values,
            interval=bootstrap_interval(list(values.values())),
            comparison=None if clean is None else compare(values, clean.values),
            deviation=None if deviations is None else float(deviations.mean()),
            figures=figures,
        )

    def _each(self, change: Callable[[Ranking], Ranking]) -> list[Ranking]:
        return [change(ranking) for ranking in self.first]

    def _repeated(self, slug: str, make: Callable[[int], list[Ranking]]) -> dict[str, Callable[[], list[Ranking]]]:
        seeds = range(self.settings.seed, self.settings.seed + self.settings.repeats)
        return {f"{slug}-{seed}": partial(make, seed) for seed in seeds}

    def _retrieved_with_typos(self, seed: int) -> list[Ranking]:
        queries = [with_typo(query, seed=seed) for query in self.dataset.queries]
        return self.retriever.retrieve(queries, self.retrieval_depth)

    def _depth_trials(self) -> list[_Trial]:
        """Rerank more and more candidates, and fuse each result with the first stage."""
        longest = max(map(len, self.first))
        trials = []
        for depth in sorted({min(depth, longest) for depth in self.settings.depths}):
            # Later stages keep what they see, but must not reach below what the first one has ordered.
            first, *later = self.stages
            stages = (replace(first, depth=depth), *(replace(s, depth=min(s.depth, depth)) for s in later))
            slug = f"depth-{depth}"
            trials += [
                _Trial("depth", f"top {depth}", {slug: lambda: list(self.first)}, stages),
                _Trial("depth", f"top {depth}, fused", {f"{slug}-fused": partial(self._fused, slug)}, ()),
            ]
        return trials

    def _fused(self, slug: str) -> list[Ranking]:
        orders, fused = self.orders(slug), []
        for ranking in self.first:
            documents = {document.id: document for document in ranking.documents}
            reranked = Ranking.from_order(ranking.query, [documents[i] for i in orders[ranking.query.id]])
            fused.append(reciprocal_rank_fusion([reranked, ranking]))
        return fused

    def _consistency(self, repeats: Sequence[Orders]) -> dict[str, float]:
        """Mean tau between the clean order of the candidates the first stage sees and that after each repeat."""
        clean, taus = self.orders(CLEAN), []
        for orders in repeats:
            for ranking in self.first:
                seen, query_id = set(ranking.ids[: self.pool]), ranking.query.id
                if len(seen) > 1:
                    one, other = ([i for i in order[query_id] if i in seen] for order in (clean, orders))
                    taus.append(kendall_tau(one, other))
        return {"tau": float(np.mean(taus))} if taus else {}

    def _rewrite_trials(self, rewrites: Mapping[str, Document]) -> list[_Trial]:
        candidates = {document.id for ranking in self.first for document in ranking.documents}
        share = len(candidates & rewrites.keys()) / len(candidates)
        if not share:
            raise InvalidInputError(
                f"none of the {len(candidates)} candidates is among the {len(rewrites)} rewritten documents; "
                "their ids must be those of the collection",
                field="rewrites",
            )

        def both(*, rewritten_first: bool) -> list[Ranking]:
            return self._each(lambda r: both_offered(r, rewrites, self.pool, rewritten_first=rewritten_first))

        return [
            _Trial(
                "documents",
                "rewritten",
                {"rewritten": lambda: self._each(lambda r: rebuilt(r, change=lambda d: rewritten(d, rewrites)))},
                self.stages,
                lambda _: {"share of candidates rewritten": share},
            ),
            _Trial(
                "documents",
                "rewritten beside original",
                {
                    "original-first": partial(both, rewritten_first=False),
                    "rewritten-first": partial(both, rewritten_first=True),
                },
                self.stages,
                _preference,
                measured=False,
            ),
        ]

    def _attack_trial(self, attack: Attack) -> _Trial:
        def inputs() -> list[Ranking]:
            return self._each(lambda r: attacked(r, self.victims.get(r.query.id), attack))

        def figures(repeats: Sequence[Orders]) -> dict[str, float]:
            (orders,), clean = repeats, self.orders(CLEAN)
            changes = rank_changes(orders, clean, self.victims)
            return {
                "queries attacked": len(changes),
                "places won": mean(changes),
                "enters the top 10": share_entering(orders, clean, self.victims),
            }

        return _Trial("attacks", attack.name, {f"attack-{attack.slug}": inputs}, self.stages, figures)


def _preference(repeats: Sequence[Orders]) -> dict[str, float]:
    shares = shares_above(repeats)
    if not shares:
        return {"queries": 0}
    interval = bootstrap_interval(list(shares.values()))
    return {
        "queries": len(shares),
        "rewritten above original": interval.mean,
        "low": interval.low,
        "high": interval.high,
    }


def _digest(rankings: Sequence[Ranking]) -> str:
    """Everything a ranker could see, so that a run over other input is never gone on with."""
    digest = hashlib.sha256()
    for ranking in rankings:
        documents = [(item.document.id, item.document.content, item.score) for item in ranking.items]
        digest.update(json.dumps([ranking.query.id, ranking.query.text, documents]).encode())
    return digest.hexdigest()

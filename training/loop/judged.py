"""A candidate and the live model on a judged collection, each in the same place of the same pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from index.pipelines import Pipelines
from index.stages import LtrSpec, ModelSource, StageSpec, find_model, load_ranker
from rankers.errors import ConfigError
from rankers.pipeline import Stage
from rankers.types import Ranking
from training.evaluation.inputs import choose_source, load_judged
from training.evaluation.measures import measure_run
from training.evaluation.significance import bootstrap_interval
from training.loop.settings import JudgedGate

PLACES = 100
BATCH_SIZE = 32


def learned_stage(pipelines: Pipelines, model: str) -> LtrSpec:
    """Find the stage that a model serves in.

    Parameters
    ----------
    pipelines
        All that are configured.
    model
        Name in the registry.

    Returns
    -------
    LtrSpec
        The first one; all that name the model must make the same features.

    Raises
    ------
    ConfigError
        If no pipeline has it, or two would show it other features.
    """
    found = [
        stage
        for pipeline in pipelines.spec.pipelines.values()
        for stage in pipeline.stages
        if isinstance(stage, LtrSpec) and stage.model == model
    ]
    if not found:
        raise ConfigError(f"no pipeline has a stage {{kind: ltr, model: {model}}}, so nothing would serve the model")
    sets = {stage.feature_set for stage in found}
    if len(sets) > 1:
        raise ConfigError(f"stages with model {model!r} make different features: {', '.join(sorted(sets))}; use one")
    return found[0]


def measure_judged(
    gate: JudgedGate,
    pipelines: Pipelines,
    model: str,
    candidate: Path,
    *,
    on_progress: Callable[[str, int, int], None],
) -> tuple[float, float, float]:
    """Measure the candidate and the live model.

    Parameters
    ----------
    gate
        Which collection, and how.
    pipelines
        All that are configured.
    model
        Name in the registry.
    candidate
        The candidate's folder.
    on_progress
        Called with what is being done, how much of it is, and how much there is.

    Returns
    -------
    tuple
        Mean measure of the candidate, of the live model, and the one-sided lower bound of the mean difference.
    """
    judged = load_judged(str(gate.data), split=gate.split, qrels=None, topics=None, documents=None, limit=gate.limit)
    source = choose_source(pipelines, judged, [gate.pipeline], index=None, first_stage=None, on_progress=on_progress)
    specs = pipelines.spec.pipelines[pipelines.resolve(gate.pipeline)].stages

    def measured(stages: Sequence[Stage]) -> dict[str, float]:
        pipeline = pipelines.open(gate.pipeline, index=source.index, retriever=source.retriever, stages=stages)
        rankings: list[Ranking] = []
        for start in range(0, len(judged.queries), BATCH_SIZE):
            rankings += pipeline.retrieve(judged.queries[start : start + BATCH_SIZE], PLACES)
            on_progress(str(gate.data), len(rankings), len(judged.queries))
        # Ranks and not scores, so that ties are cut as they are ordered.
        run = {r.query.id: {item.document.id: -float(item.rank) for item in r.items} for r in rankings}
        return measure_run(run, judged.qrels, [gate.measure])[gate.measure]

    ours = measured([_stage(spec, pipelines, model, candidate) for spec in specs])
    live = measured([_stage(spec, pipelines, model, None) for spec in specs])
    differences = [ours[query] - live[query] for query in live]
    bound = bootstrap_interval(differences, confidence=2 * gate.confidence - 1).low
    return sum(ours.values()) / len(ours), sum(live.values()) / len(live), bound


def _stage(spec: StageSpec, pipelines: Pipelines, model: str, candidate: Path | None) -> Stage:
    """Open a stage; one that runs the model, with the candidate or, without one, with what is live."""
    is_ours = isinstance(spec, LtrSpec) and spec.model == model
    if is_ours:
        # A calibration changes no order, and the candidate can have none yet.
        spec = spec.model_copy(update={"calibration": None})
    if is_ours and candidate is not None:
        source = ModelSource(str(candidate), "")
    else:
        source = find_model(spec, models_dir=pipelines.models_dir)
    ranker = load_ranker(spec, source, models_dir=pipelines.models_dir, once=lambda _, load: load())
    return Stage(spec.name, ranker, spec.depth, model=source.label)

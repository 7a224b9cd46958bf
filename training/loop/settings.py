"""What a loop is told: which model to learn from which log, and what a candidate must beat before it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rankers.errors import ConfigError

LearnerName = Literal[
    "dla", "dla-trees", "regression-em", "regression-em-trust", "pairwise", "naive", "lightgbm", "xgboost"
]
ScorerName = Literal["mlp", "linear"]
OF_TREES: tuple[LearnerName, ...] = ("dla-trees", "lightgbm", "xgboost")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClickGate(_Part):
    """What clicks that were not learned from must say: the candidate against the model that is live.

    Parameters
    ----------
    min_sessions
        Sessions to learn from, below which there is no candidate.
    min_clicks
        Clicks to learn from.
    min_difference
        Least difference in value, as a share of the live model's value.
    confidence
        How sure it must be that the difference is above `min_difference`, as a share of drawn logs.
    max_curve_change
        Largest mean absolute change of the examination curve since the model that is live.
    max_removed
        Largest share of events that the filters may have left out as bots or impossible; duplicates do not count.
    """

    min_sessions: int = Field(500, ge=1)
    min_clicks: int = Field(100, ge=1)
    min_difference: float = 0.0
    confidence: float = Field(0.95, gt=0.5, lt=1)
    max_curve_change: float = Field(0.15, gt=0)
    max_removed: float = Field(0.3, ge=0, le=1)


class JudgedGate(_Part):
    """What a judged collection must say.

    Parameters
    ----------
    data
        A folder in BEIR layout.
    pipeline
        The pipeline that searches it, in whose learned stage the candidate takes its place.
    split
        Which judgements.
    measure
        As ir_measures writes it; nDCG has linear gain.
    min_difference
        Least difference from the live model; a little below 0 accepts what is not clearly worse.
    confidence
        Of the one-sided bootstrap bound that must lie above `min_difference`.
    limit
        Only so many queries.
    """

    data: Path
    pipeline: str
    split: str = "test"
    measure: str = "nDCG@10"
    min_difference: float = -0.01
    confidence: float = Field(0.95, gt=0.5, lt=1)
    limit: int | None = Field(None, ge=1)


class Gate(_Part):
    """What a candidate must beat."""

    clicks: ClickGate = ClickGate()
    collections: tuple[JudgedGate, ...] = ()


class LoopSettings(_Part):
    """One loop.

    Parameters
    ----------
    model
        The model of the registry that is learned, as an `ltr` stage names it.
    log
        Database of the click log.
    config
        The file that names pipelines; it says where the models are.
    work_dir
        Where runs are kept; what is exported of the log is deleted when a run ends.
    learner
        How to learn.
    scorer
        Network with two hidden layers, or with none; also where the loop falls back to another learner.
    held_out
        Share of the impressions, the latest ones, whose clicks decide and are not learned from.
    window_days
        Only the log of so many days; all of it if not given.
    warm_start
        Whether to go on from the live model's weights.
    seed
        Of everything random.
    gate
        What a candidate must beat.
    """

    model: str
    log: str = "sqlite:///var/clicks.sqlite"
    config: Path = Path("shortlist.yaml")
    work_dir: Path = Path("var/loop")
    learner: LearnerName = "dla"
    scorer: ScorerName = "mlp"
    held_out: float = Field(0.3, gt=0, lt=1)
    window_days: float | None = Field(None, gt=0)
    warm_start: bool = False
    seed: int = Field(0, ge=0)
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _trees_have_no_scorer(self) -> LoopSettings:
        if self.scorer == "linear" and self.learner in OF_TREES:
            raise ValueError(
                f"scorer is 'linear' and learner {self.learner!r} makes trees; leave the scorer out, or learn with dla"
            )
        return self


def load_settings(path: Path) -> LoopSettings:
    """Read a loop's file; relative paths in it are relative to it.

    Parameters
    ----------
    path
        YAML.

    Returns
    -------
    LoopSettings
        Checked.

    Raises
    ------
    ConfigError
        If it cannot be read, or says something that cannot be.
    """
    try:
        content = yaml.safe_load(path.read_text())
        settings = LoopSettings.model_validate(content)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; it says which model to learn from which log (docs/loop.md)"
        ) from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} cannot be used: {error}") from error
    base = path.parent
    collections = tuple(gate.model_copy(update={"data": base / gate.data}) for gate in settings.gate.collections)
    return settings.model_copy(
        update={
            "config": base / settings.config,
            "work_dir": base / settings.work_dir,
            "log": _relative_to(settings.log, base),
            "gate": settings.gate.model_copy(update={"collections": collections}),
        }
    )


def _relative_to(url: str, base: Path) -> str:
    prefix = "sqlite:///"
    return f"{prefix}{base / url.removeprefix(prefix)}" if url.startswith(prefix) else url

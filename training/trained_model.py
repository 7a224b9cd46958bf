"""Where a training run ends: a version in the registry, with its recipe and history beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankers.errors import MissingExtraError
from rankers.registry import ModelCard, ModelRegistry
from training.dev_lists import MEASURE
from training.processes import in_first_process

RECIPE_FILE = "training.json"
HISTORY_FILE = "history.json"
CURVES_FILE = "curves.png"

ModelKind = Literal["causal-lm", "cross-encoder", "encoder"]


@dataclass(frozen=True, slots=True)
class RunPlace:
    """What a run is called and where its parts go: `folder` keeps checkpoints, `mlflow` may track it."""

    name: str
    version: str
    models_dir: Path
    folder: Path
    promote: bool = False
    mlflow: str | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """How a run went: dev nDCG@10 before it and at its best checkpoint, and what was noted at which step.

    An entry of `history` has its ``step``, and ``loss`` or the dev measure or both.
    """

    first_ndcg: float
    best_ndcg: float
    best_step: int
    history: Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """Where a run ended: ``name@version`` in the registry, and how it went."""

    label: str
    path: Path
    course: Course

    def __str__(self) -> str:
        """For the terminal."""
        course = self.course
        verdict = "" if course.best_ndcg > course.first_ndcg else " (training did not help)"
        return (
            f"{self.label}: dev nDCG@10 {course.best_ndcg:.4f} at step {course.best_step}, {course.first_ndcg:.4f} "
            f"before{verdict}; it is in {self.path}, with {CURVES_FILE}"
        )


def register(
    save: Callable[[Path], None],
    course: Course,
    recipe: Mapping[str, object],
    *,
    place: RunPlace,
    kind: ModelKind,
    source: Path,
) -> TrainedModel:
    """Add the best checkpoint to the registry, with the recipe, the history and its picture beside the weights.

    Of several processes the first one does; the others wait and are given its result.

    Parameters
    ----------
    save
        Writes the model into a folder.
    course
        How the run went.
    recipe
        Model, settings, and what lists; `data_sha256` is for the card.
    place
        What it is called.
    kind
        What loads it.
    source
        Folder of the model it was trained from.

    Returns
    -------
    TrainedModel
        Where it is.
    """
    return in_first_process(lambda: _add(save, course, recipe, place=place, kind=kind, source=source))


def _add(
    save: Callable[[Path], None],
    course: Course,
    recipe: Mapping[str, object],
    *,
    place: RunPlace,
    kind: ModelKind,
    source: Path,
) -> TrainedModel:
    registry = ModelRegistry(place.models_dir)
    measures = {"dev nDCG@10": course.best_ndcg, "dev nDCG@10 before training": course.first_ndcg}
    card = ModelCard(
        place.name,
        place.version,
        kind=kind,
        source=f"trained from {recipe['model']}",
        licence=f"that of {recipe['model']} and of its training data; see {RECIPE_FILE}",
        data_hash=f"sha256:{recipe['data_sha256']}",
        parent=registry.label(source),
        measures=measures,
    )

    def write(target: Path) -> None:
        save(target)
        content = {**recipe, "best_step": course.best_step, **measures}
        (target / RECIPE_FILE).write_text(json.dumps(content, indent=2) + "\n")
        (target / HISTORY_FILE).write_text(json.dumps(course.history) + "\n")
        plot_history(course.history, target / CURVES_FILE)

    path = registry.add(card, write, promote=place.promote, why="trained")
    return TrainedModel(card.label, path, course)


def plot_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the loss and the dev measure by step.

    Parameters
    ----------
    history
        What a trainer's state keeps.
    path
        A picture, in the format its suffix names.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="evaluate") from error
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, dev = figure.subplots(1, 2)
    for axes, name, title in ((loss, "loss", "training loss"), (dev, MEASURE, "nDCG@10 on held-out lists")):
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        axes.plot([step for step, _ in points], [value for _, value in points], marker="." if axes is dev else "")
        axes.set(title=title, xlabel="step")
    figure.savefig(path, dpi=120)

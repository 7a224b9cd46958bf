"""What training runs share: how they are described, whose folder it is, where to go on, what is told."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from transformers import PrinterCallback, TrainerCallback

from rankers.errors import InvalidInputError
from rankers.registry import ModelRegistry
from training.data.training_list import TrainingList, hash_lists
from training.dev_lists import MEASURE
from training.processes import in_first_process, is_first_process
from training.tracking import tracked_run
from training.trained_model import Course, RunPlace
from training.trainer_settings import TrainerSettings

FINGERPRINT_FILE = "RUN"
BEFORE_FILE = "before.json"
STATE_FILE = "trainer_state.json"
LOGGING_STEPS = 10

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called with a step, how many there are, and what was measured at it: ``loss``, a dev measure."""


def describe_run(
    model: str,
    settings: BaseModel,
    *,
    source: Path,
    place: RunPlace,
    training: Sequence[TrainingList],
    held_out: Sequence[TrainingList],
) -> dict[str, Any]:
    """Write down what decides the course of a run: the recipe that is stored beside the model.

    `model` is what it starts from by the name that was given, `source` where that was found.
    """
    return {
        "model": model,
        "source": ModelRegistry(place.models_dir).label(source) or str(source),
        "settings": settings.model_dump(mode="json"),
        "data_sha256": hash_lists(training),
        "lists": Counter(item.source for item in training),
        "held_out": Counter(item.source for item in held_out),
        "held_out_sha256": hash_lists(held_out),
    }


@contextmanager
def followed_run(place: RunPlace, recipe: Mapping[str, Any], on_step: OnStep) -> Iterator[OnStep]:
    """Tell MLflow, where the run is tracked there, and `on_step` whatever the given function is told.

    Of several processes only the first one tells anybody.
    """
    if not is_first_process():
        yield _tell_nobody
        return
    parameters = {**recipe["settings"], "model": recipe["source"], "data_sha256": recipe["data_sha256"]}
    with tracked_run(place.mlflow, experiment=place.name, parameters=parameters, folder=place.folder) as log:

        def note(step: int, steps: int, measures: Mapping[str, float]) -> None:
            log(step, measures)
            on_step(step, steps, measures)

        yield note


def _tell_nobody(step: int, steps: int, measures: Mapping[str, float]) -> None:
    """Be told about a step, in a process that does not report."""


def claim_folder(folder: Path, content: Mapping[str, object]) -> None:
    """Make a run's folder, or make sure that it is this run's; of several processes the first one does.

    Parameters
    ----------
    folder
        For checkpoints.
    content
        Whatever decides the course of the run: settings, the hash of the data, the model it starts from.

    Raises
    ------
    InvalidInputError
        If the folder belongs to another run.
    """
    in_first_process(lambda: _claim(folder, content))


def _claim(folder: Path, content: Mapping[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FINGERPRINT_FILE
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    if not path.is_file():
        _write_whole(path, fingerprint)
    elif path.read_text() != fingerprint:
        raise InvalidInputError(
            f"{folder} holds a run with other settings, data or model; give another --folder, or delete it"
        )


def _write_whole(path: Path, text: str) -> None:
    staged = path.with_suffix(".incoming")
    staged.write_text(text)
    staged.replace(path)


def last_checkpoint(folder: Path) -> str | None:
    """Find where to go on, and remove a checkpoint that was cut off while it was written.

    Parameters
    ----------
    folder
        Of a run.

    Returns
    -------
    str or None
        The latest complete checkpoint, None if there is none.
    """
    return in_first_process(lambda: _last_checkpoint(folder))


def _last_checkpoint(folder: Path) -> str | None:
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while found:
        try:
            json.loads((found[-1] / STATE_FILE).read_text())  # what the trainer writes last
        except (OSError, ValueError):
            shutil.rmtree(found.pop())
        else:
            return str(found[-1])
    return None


class Watcher(TrainerCallback):
    """Tells what happens, and sets the progress of a loss that asks for it.

    Parameters
    ----------
    on_step
        Called whenever something was measured.
    on_progress
        Called before every step with the share of the training that is done.
    """

    def __init__(self, on_step: OnStep, on_progress: Callable[[float], None] | None = None) -> None:
        self._on_step = on_step
        self._on_progress = on_progress

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 (the library's)
        """Say how far it is."""
        if self._on_progress is not None:
            self._on_progress(state.global_step / state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 (the library's)
        """Pass on losses and dev measures; stop where the model has diverged."""
        measures = _measures(kwargs["logs"])
        if not all(math.isfinite(kwargs["logs"].get(name, 0.0)) for name in ("loss", "grad_norm")):
            raise InvalidInputError(
                f"the loss or its gradient was not finite shortly before step {state.global_step}; lower "
                f"learning_rate, now {args.learning_rate:g}"
            )
        if measures:
            self._on_step(state.global_step, state.max_steps, measures)


def trainer_arguments(folder: Path, settings: TrainerSettings, *, steps: int) -> dict[str, Any]:
    """Arguments that trainers share: measure and keep a checkpoint every so often, and end with the best one.

    Parameters
    ----------
    folder
        For checkpoints.
    settings
        The recipe. Where there are fewer steps than from one checkpoint to the next, one is kept at the end.
    steps
        How many there are in all epochs; `settings` may stop before.

    Returns
    -------
    dict
        For a ``TrainingArguments``.
    """
    steps = min(steps, settings.steps or steps)
    interval = min(settings.steps_between_checkpoints, steps)
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "logging_steps": min(LOGGING_STEPS, interval),  # a checkpoint comes after a look at the loss
        "eval_strategy": "steps",
        "eval_steps": interval,
        "save_steps": interval,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": MEASURE,
        "greater_is_better": True,
        "lr_scheduler_type": "cosine",
        "logging_nan_inf_filter": False,  # which would hide that a run has diverged
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        # Without a GPU, trainers that are not told so take each of several processes for the only one, and refuse bf16.
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        "ddp_broadcast_buffers": False,  # processes may need different numbers of forward passes for a step
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "bf16": settings.precision == "bf16",
        "seed": settings.seed,
    }


def on_one_device(arguments: Any) -> Any:
    """Keep a process to one device: several GPUs are for several processes, which share what a step takes."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def run_trainer(trainer: Any, folder: Path) -> Any:
    """Train from the last checkpoint in the folder on, and give the trainer's final state.

    The weights of the best checkpoint are left in the model.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return trainer.state


def measure_before(measure: Callable[[], dict[str, float]], folder: Path) -> float:
    """Measure the model as it starts: once per run, also if it is interrupted, and in one process."""
    return in_first_process(lambda: _measure_before(measure, folder))


def _measure_before(measure: Callable[[], dict[str, float]], folder: Path) -> float:
    path = folder / BEFORE_FILE
    if not path.is_file():
        _write_whole(path, json.dumps(measure()))
    return float(json.loads(path.read_text())[MEASURE])


def course_of(state: Any, first_ndcg: float) -> Course:
    """Give what is kept of a trainer's final state, and of `measure_before`."""
    noted = [{"step": entry["step"], **_measures(entry)} for entry in state.log_history]
    return Course(first_ndcg, state.best_metric, state.best_global_step, [{"step": 0, MEASURE: first_ndcg}, *noted])


def _measures(log: Mapping[str, float]) -> dict[str, float]:
    """Loss and dev measure of a log entry, without the prefix that trainers put before the latter."""
    found = {name.removeprefix("eval_"): float(value) for name, value in log.items()}
    return {name: value for name, value in found.items() if name in {"loss", MEASURE}}

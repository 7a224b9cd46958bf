"""The training loop of FIRST, to be read from top to bottom."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from rankers.errors import InvalidInputError
from training.listwise.dev import measure
from training.listwise.examples import Example, ExampleStream
from training.listwise.network import ListwiseNetwork
from training.listwise.settings import ListwiseSettings

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step cost and gave; `dev_ndcg` where it was measured, `tokens` and `seconds` since the start."""

    step: int
    loss: float
    language_model_loss: float
    ranking_loss: float
    tokens: int
    seconds: float
    dev_ndcg: float | None = None


@dataclass(slots=True)
class _Progress:
    """All that a checkpoint holds beside the optimizer: what was done, and the best weights so far."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_ndcg: float = -1.0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[StepRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """The best step by dev nDCG@10, whose weights the network has now; step 0 is the model that came in."""

    best_step: int
    best_ndcg: float
    history: tuple[StepRecord, ...]

    @property
    def first_ndcg(self) -> float:
        """Dev nDCG@10 before training."""
        return next(record.dev_ndcg for record in self.history if record.dev_ndcg is not None)


def train(
    network: ListwiseNetwork,
    stream: ExampleStream,
    dev: Sequence[Example],
    settings: ListwiseSettings,
    *,
    folder: Path,
    on_step: Callable[[StepRecord], None],
) -> TrainingOutcome:
    """Train, and leave the network with the weights that were best on held-out lists.

    Every step is a function of the seed, the step and the weights, so a run that was killed and called again with the
    same arguments ends with the weights it would have had; it loses at most `settings.steps_between_checkpoints`.
    Under ``accelerate launch`` or ``torchrun`` each process takes its share of every step.

    Parameters
    ----------
    network
        Float32 weights; those that require gradients are trained.
    stream
        What to learn from.
    dev
        Held-out examples.
    settings
        The recipe.
    folder
        Where the checkpoint of this run is kept.
    on_step
        Called after every step, in the first process only.

    Returns
    -------
    TrainingOutcome
        What was reached.

    Raises
    ------
    InvalidInputError
        If the processes cannot share a step evenly, or the loss or its gradient is not finite: the checkpoint from
        before stays.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    computing = partial(torch.autocast, accelerator.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    share, rest = divmod(settings.lists_per_step, settings.lists_per_pass * accelerator.num_processes)
    if rest:
        raise InvalidInputError(
            f"lists_per_step {settings.lists_per_step} cannot be shared by {accelerator.num_processes} processes with "
            f"{settings.lists_per_pass} lists per pass; make it a multiple of their product"
        )
    weights = {name: value for name, value in network.named_parameters() if value.requires_grad}
    optimizer: Any = torch.optim.AdamW(weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    checkpoint = folder / CHECKPOINT_FILE
    progress = _resume(checkpoint, weights, optimizer)
    model, optimizer = accelerator.prepare(network, optimizer)
    network.train()

    def measured() -> float:
        with computing():
            return measure(network, dev, lists_per_pass=settings.lists_per_pass)

    if not progress.history:
        untrained = StepRecord(
            0, loss=math.nan, language_model_loss=math.nan, ranking_loss=math.nan, tokens=0, seconds=0.0
        )
        _keep_best(progress, replace(untrained, dev_ndcg=measured()), weights)
        on_step(progress.history[-1])
    started = time.monotonic() - progress.seconds

    for step in range(progress.step, settings.steps):
        torch.manual_seed(
            (settings.seed * settings.steps + step) * accelerator.num_processes + accelerator.process_index
        )
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, settings)
        passes = _passes(stream, step, settings, accelerator)
        sums = torch.zeros(3)
        for i, examples in enumerate(passes):
            last = i + 1 == share
            with contextlib.nullcontext() if last else accelerator.no_sync(model):
                with computing():
                    losses = model(examples)
                accelerator.backward(losses.total / share)
            sums += torch.stack([losses.total.detach(), losses.language_model, losses.ranking]).cpu() / share
            progress.tokens += accelerator.num_processes * sum(len(e.prompt) + len(e.answer) - 1 for e in examples)
        norm = accelerator.clip_grad_norm_(weights.values(), settings.max_gradient_norm)
        if not math.isfinite(float(sums[0]) + float(norm)):
            raise InvalidInputError(
                f"the loss or its gradient is not finite at step {step + 1}; lower learning_rate (now "
                f"{settings.learning_rate:g})"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        progress.step = step + 1
        progress.seconds = time.monotonic() - started
        finished = progress.step == settings.steps
        total, language_model, ranking = sums.tolist()
        record = StepRecord(progress.step, total, language_model, ranking, progress.tokens, seconds=progress.seconds)
        if finished or progress.step % settings.steps_between_measurements == 0:
            record = replace(record, dev_ndcg=measured())
        _keep_best(progress, record, weights)
        if accelerator.is_main_process:
            on_step(progress.history[-1])
            if finished or progress.step % settings.steps_between_checkpoints == 0:
                _save(checkpoint, progress, weights, optimizer)

    _load_weights(weights, progress.best_weights)
    return TrainingOutcome(progress.best_step, progress.best_ndcg, tuple(progress.history))


def _passes(
    stream: ExampleStream, step: int, settings: ListwiseSettings, accelerator: Accelerator
) -> list[list[Example]]:
    """Give this process its examples of a step, pass by pass."""
    first = step * settings.lists_per_step
    windows = [
        stream[first + i] for i in range(accelerator.process_index, settings.lists_per_step, accelerator.num_processes)
    ]
    size = settings.lists_per_pass
    return [[example for window in windows[i : i + size] for example in window] for i in range(0, len(windows), size)]


def _rate(step: int, settings: ListwiseSettings) -> float:
    """Share of the learning rate: a linear rise, then a cosine down to a tenth."""
    rise = max(1, round(settings.warmup * settings.steps))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, settings.steps - rise)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def _keep_best(progress: _Progress, record: StepRecord, weights: dict[str, torch.nn.Parameter]) -> None:
    """Note a step; keep its weights if there were never better ones on the held-out lists."""
    progress.history.append(record)
    if record.dev_ndcg is not None and record.dev_ndcg > progress.best_ndcg:
        progress.best_step, progress.best_ndcg = record.step, record.dev_ndcg
        progress.best_weights = {name: weight.detach().cpu().clone() for name, weight in weights.items()}


def _save(path: Path, progress: _Progress, weights: dict[str, torch.nn.Parameter], optimizer: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".incoming")
    content = {
        "progress": {**asdict(progress), "best_weights": progress.best_weights},
        "weights": {name: weight.detach().cpu() for name, weight in weights.items()},
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, staged)
    staged.replace(path)


def _resume(path: Path, weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> _Progress:
    if not path.is_file():
        return _Progress()
    content = torch.load(path, map_location="cpu", weights_only=True)
    _load_weights(weights, content["weights"])
    optimizer.load_state_dict(content["optimizer"])
    stored = content["progress"]
    return _Progress(**{**stored, "history": [StepRecord(**record) for record in stored["history"]]})


@torch.no_grad()
def _load_weights(weights: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])

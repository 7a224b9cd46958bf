"""One interface for all learners: from a collapsed click log to a ranker that can be scored with, saved, and continued.

Networks (`training.ultr.fitting`) and trees (`training.ultr.tree_rows`) are both behind it; learners have modules of
their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rankers.errors import ConfigError, NotFoundError
from rankers.ltr.models import NumericRanker, load_numeric_ranker, load_propensities, save_numeric_ranker
from training.ultr.lists import ClickLists

STATE_FILE = "training.safetensors"
TRAINING_FILE = "training.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stood after a number of steps (or trees): the loss of the last batch and that of held-out queries.

    A held-out loss is None where no queries were held out. It is corrected with what was known about examination at
    that time, so that it may fall for that reason too.
    """

    step: int
    training_loss: float
    held_out_loss: float | None


@dataclass(frozen=True, slots=True)
class FittedRanker:
    """What a learner made of a log.

    `propensities` float64 [K] are relative to the most examined slot, NaN for slots that were never shown; None where
    the learner has none. `state` is what training needs to go on from here, `settings` how the learner was set.
    """

    model: NumericRanker
    propensities: npt.NDArray[np.float64] | None = None
    history: tuple[Progress, ...] = ()
    state: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features it reads, in order."""
        return self.model.feature_names

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score float32 [n, F], NaN where a feature is missing: float64 [n], higher is better."""
        return self.model.score(features)

    def save(self, folder: Path) -> None:
        """Write the model as `rankers.ltr.models` reads it, and what continuing needs beside it.

        Parameters
        ----------
        folder
            Made if missing.
        """
        from safetensors.torch import save_file

        save_numeric_ranker(self.model, folder, propensities=self.propensities)
        save_file({name: value.contiguous() for name, value in self.state.items()}, folder / STATE_FILE)
        training = {"settings": dict(self.settings), "history": [asdict(progress) for progress in self.history]}
        (folder / TRAINING_FILE).write_text(json.dumps(training, indent=2, default=_plain) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> FittedRanker:
        """Read what `save` wrote, ready to be continued.

        Parameters
        ----------
        folder
            Of `save`.

        Returns
        -------
        FittedRanker
            Scores as the one saved.

        Raises
        ------
        NotFoundError
            If a file is missing; `rankers.ltr.models.load_numeric_ranker` needs fewer of them.
        ConfigError
            If a file cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        model = load_numeric_ranker(folder)
        try:
            training = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
            history = tuple(Progress(**progress) for progress in training["history"])
            state = load_file(folder / STATE_FILE)
        except FileNotFoundError as error:
            raise NotFoundError(f"{folder} holds a ranker but not how it was trained ({error})") from error
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ConfigError(f"{folder} does not say how its ranker was trained ({error}); train it again") from error
        return cls(model, load_propensities(folder), history, state, training["settings"])


class Learner(Protocol):
    """Makes a ranker of a click log."""

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """Learn from the lists, from scratch or from where an earlier ranker stopped.

        Parameters
        ----------
        lists
            The collapsed log.
        warm_start
            A ranker of the same learner, over the same features.
        seed
            Of everything random; the same seed gives the same ranker, bit by bit.

        Returns
        -------
        FittedRanker
            Scores rows of the same features.

        Raises
        ------
        InvalidInputError
            If there is nothing to learn from, or the warm start does not fit.
        """
        ...


def settings_of(learner: object) -> dict[str, object]:
    """Name and settings of a learner that is a dataclass, as JSON has them."""
    settings = asdict(learner)  # type: ignore[call-overload]
    found: dict[str, object] = json.loads(json.dumps(settings, default=_plain))
    return {"learner": type(learner).__name__, **found}


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not plain")

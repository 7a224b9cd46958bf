"""Neural scorers of numeric features: what brings features to one scale, and the layers after it.

Letters in shapes: N rows, F features, M features that can be missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rankers.errors import InvalidInputError

CLIP = 5.0
"""Standard deviations beyond which a feature says no more; keeps an outlier from deciding a list."""
LONG_TAIL = 3.0
"""A feature whose largest distance from its median is more of its standard deviations than this is read by its log."""

ROWS_AT_ONCE = 1 << 16


class Normaliser(nn.Module):
    """Features as standard scores, with a 0-1 indicator for each feature that was missing somewhere in training.

    x -> clip((t(x) - mean) / deviation, -5, 5), where t is sign(x) ln(1 + |x|) for long-tailed features and x for all
    others. A missing value (NaN) becomes 0, the mean, and its indicator 1. A feature that never varied becomes 0.

    Parameters
    ----------
    features
        F.
    missing
        Numbers of the features that get an indicator, M of them.
    """

    mean: Tensor
    deviation: Tensor
    long_tailed: Tensor
    missing: Tensor

    def __init__(self, features: int, missing: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("long_tailed", torch.zeros(features, dtype=torch.bool))
        self.register_buffer("missing", torch.zeros(missing, dtype=torch.int64))

    @classmethod
    def fit(cls, features: npt.NDArray[np.float32]) -> Self:
        """Find means, deviations and long tails in float32 [N, F]; NaN is missing, infinity is refused."""
        if np.isinf(features).any():
            row, column = np.argwhere(np.isinf(features))[0]
            raise InvalidInputError(
                f"feature {column} of row {row} is infinite; give a number, or NaN where there is none"
            )
        absent = np.isnan(features)
        possible = np.flatnonzero(absent.any(axis=0))
        fitted = cls(features.shape[1], len(possible))
        if not len(features):
            return fitted
        values = np.ma.masked_array(features.astype(np.float64), absent)
        deviation = values.std(axis=0).filled(0.0)
        reach = np.abs(values - np.ma.median(values, axis=0)).max(axis=0).filled(0.0)
        tailed = reach > LONG_TAIL * np.where(deviation > 0, deviation, np.inf)
        values = np.ma.where(tailed, np.sign(values) * np.log1p(np.abs(values)), values)
        fitted.missing.copy_(torch.from_numpy(possible))
        fitted.long_tailed.copy_(torch.from_numpy(tailed))
        fitted.mean.copy_(torch.from_numpy(values.mean(axis=0).filled(0.0)))
        deviation = values.std(axis=0).filled(0.0)
        fitted.deviation.copy_(torch.from_numpy(np.where(deviation > 1e-9, deviation, np.inf)))
        return fitted

    @property
    def width(self) -> int:
        """Columns of the result, F + M."""
        return len(self.mean) + len(self.missing)

    def forward(self, features: Tensor) -> Tensor:
        """Bring float32 [..., F] to one scale: float32 [..., F + M]."""
        logs = features.sign() * features.abs().log1p()
        values = (torch.where(self.long_tailed, logs, features) - self.mean) / self.deviation
        values = values.nan_to_num(0.0).clamp(-CLIP, CLIP)
        return torch.cat([values, features[..., self.missing].isnan().to(values.dtype)], dim=-1)


class Scorer(nn.Module):
    """A score for each row of normalised features: linear, or a multilayer perceptron.

    Parameters
    ----------
    width
        Columns that come in.
    hidden
        Sizes of the hidden layers; none of them makes it linear.
    seed
        Of the first weights: uniform in +-sqrt(3 / inputs) before a ReLU (He, Zhang, Ren, Sun, ICCV 2015, halved in
        variance), zero at the output, so that every document starts with the same score.
    """

    def __init__(self, width: int, hidden: tuple[int, ...] = (64, 32), *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((width, *hidden)):
            layer = nn.Linear(inputs, outputs)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
        last = nn.Linear((width, *hidden)[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, values: Tensor) -> Tensor:
        """Score float32 [..., width]: float32 [...]."""
        scores: Tensor = self.layers(values).squeeze(-1)
        return scores


class RankingNetwork(nn.Module):
    """A normaliser and a scorer: from raw features to scores.

    Parameters
    ----------
    normaliser
        Fitted on training data.
    scorer
        Of the normaliser's width.
    """

    def __init__(self, normaliser: Normaliser, scorer: Scorer) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.scorer = scorer

    def forward(self, features: Tensor) -> Tensor:
        """Score float32 [..., F], NaN where missing: float32 [...]."""
        scores: Tensor = self.scorer(self.normaliser(features))
        return scores

    def normalised(self, features: npt.NDArray[np.float32]) -> Tensor:
        """Bring float32 [N, F] to the scale the scorer reads, [N, F + M], in parts so as to need little memory."""
        parts = torch.from_numpy(np.ascontiguousarray(features)).split(ROWS_AT_ONCE)
        with torch.no_grad():
            return torch.cat([self.normaliser(part) for part in parts])

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Rebuild a network from its state; the sizes of the layers are those of their weights."""
        normaliser = Normaliser(len(state["normaliser.mean"]), len(state["normaliser.missing"]))
        network = cls(normaliser, Scorer(normaliser.width, layer_sizes(state)))
        network.load_state_dict(dict(state))
        return network


def layer_sizes(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Sizes of the hidden layers, in order, that a network's state was saved with."""
    names = [name for name in state if name.startswith("scorer.layers.") and name.endswith(".weight")]
    names.sort(key=lambda name: int(name.split(".")[2]))
    return tuple(state[name].shape[0] for name in names[:-1])

"""Rankers over numeric features as directories: written by training, loaded to score.

A directory has ``ranker.json`` (what kind, which features, what was learnt about positions) and the model itself:
``weights.safetensors`` for networks, ``model.txt`` (LightGBM), ``model.json`` (XGBoost) or ``model.cbm`` (CatBoost).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError, InvalidInputError, MissingExtraError, NotFoundError

if TYPE_CHECKING:
    import catboost
    import lightgbm
    import xgboost

    from rankers.ltr.networks import RankingNetwork

RANKER_FILE = "ranker.json"
WEIGHTS_FILE = "weights.safetensors"
LIGHTGBM_FILE = "model.txt"
XGBOOST_FILE = "model.json"
CATBOOST_FILE = "model.cbm"
FORMAT = 1


class NumericRanker(Protocol):
    """Scores rows of numeric features."""

    @property
    def kind(self) -> str:
        """What loads it: ``network``, ``lightgbm``, ``xgboost`` or ``catboost``."""
        ...

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        ...

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score float32 [n, F], NaN where a feature is missing: float64 [n], higher is better."""
        ...

    def write(self, folder: Path) -> None:
        """Write the model, without ``ranker.json``, into an existing folder."""
        ...


class NetworkRanker:
    """A linear scorer or a multilayer perceptron; a `NumericRanker`.

    Parameters
    ----------
    network
        Normaliser and layers; must not be trained any further.
    feature_names
        F of them.
    """

    kind = "network"

    def __init__(self, network: RankingNetwork, feature_names: Sequence[str]) -> None:
        self.network = network.eval()
        self.feature_names = tuple(feature_names)

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score float32 [n, F]: float64 [n]."""
        import torch

        checked = _checked(features, self.feature_names)
        with torch.inference_mode():
            scores: npt.NDArray[np.float64] = self.network(torch.from_numpy(checked)).double().numpy()
        return scores

    def write(self, folder: Path) -> None:
        """Write the weights."""
        from safetensors.torch import save_file

        state = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE)

    @classmethod
    def read(cls, folder: Path, feature_names: Sequence[str]) -> NetworkRanker:
        """Read the weights."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from rankers.ltr.networks import RankingNetwork

        try:
            network = RankingNetwork.of_state(load_file(folder / WEIGHTS_FILE))
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ConfigError(f"{folder / WEIGHTS_FILE} holds no ranking network ({error}); train it again") from error
        return cls(network, feature_names)


class LightGbmRanker:
    """LightGBM trees; a `NumericRanker`.

    Parameters
    ----------
    booster
        Trained.
    feature_names
        F of them.
    """

    kind = "lightgbm"

    def __init__(self, booster: lightgbm.Booster, feature_names: Sequence[str]) -> None:
        self.booster = booster
        self.feature_names = tuple(feature_names)

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score float32 [n, F]: float64 [n]."""
        checked = _checked(features, self.feature_names)
        return np.asarray(self.booster.predict(checked), dtype=np.float64).reshape(len(checked))

    def write(self, folder: Path) -> None:
        """Write the trees."""
        self.booster.save_model(folder / LIGHTGBM_FILE)

    @classmethod
    def read(cls, folder: Path, feature_names: Sequence[str]) -> LightGbmRanker:
        """Read the trees."""
        try:
            import lightgbm
        except ImportError as error:
            raise MissingExtraError("lightgbm", extra="trees") from error
        try:
            return cls(lightgbm.Booster(model_file=folder / LIGHTGBM_FILE), feature_names)
        except lightgbm.basic.LightGBMError as error:
            raise ConfigError(f"{folder / LIGHTGBM_FILE} holds no LightGBM model ({error}); train it again") from error


class XgboostRanker:
    """XGBoost trees; a `NumericRanker`.

    Parameters
    ----------
    booster
        Trained.
    feature_names
        F of them.
    """

    kind = "xgboost"

    def __init__(self, booster: xgboost.Booster, feature_names: Sequence[str]) -> None:
        self.booster = booster
        self.feature_names = tuple(feature_names)

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score float32 [n, F]: float64 [n]."""
        checked = _checked(features, self.feature_names)
        return np.asarray(self.booster.inplace_predict(checked, predict_type="margin"), dtype=np.float64)

    def write(self, folder: Path) -> None:
        """Write the trees."""
        self.booster.save_model(folder / XGBOOST_FILE)

    @classmethod
    def read(cls, folder: Path, feature_names: Sequence[str]) -> XgboostRanker:
        """Read the trees."""
        try:
            import xgboost
        except ImportError as error:
            raise MissingExtraError("xgboost", extra="trees") from error
        try:
            return cls(xgboost.Booster(model_file=folder / XGBOOST_FILE), feature_names)
        except xgboost.core.XGBoostError as error:
            raise ConfigError(f"{folder / XGBOOST_FILE} holds no XGBoost model ({error}); train it again") from error


class CatBoostRanker:
    """CatBoost trees; a `NumericRanker`.

    Parameters
    ----------
    model
        Trained.
    feature_names
        F of them.
    """

    kind = "catboost"

    def __init__(self, model: catboost.CatBoost, feature_names: Sequence[str]) -> None:
        self.model = model
        self.feature_names = tuple(feature_names)

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score float32 [n, F]: float64 [n]."""
        checked = _checked(features, self.feature_names)
        return np.asarray(self.model.predict(checked), dtype=np.float64).reshape(len(checked))

    def write(self, folder: Path) -> None:
        """Write the trees."""
        self.model.save_model(str(folder / CATBOOST_FILE))

    @classmethod
    def read(cls, folder: Path, feature_names: Sequence[str]) -> CatBoostRanker:
        """Read the trees."""
        try:
            import catboost
        except ImportError as error:
            raise MissingExtraError("catboost", extra="trees") from error
        try:
            return cls(catboost.CatBoost().load_model(str(folder / CATBOOST_FILE)), feature_names)
        except catboost.CatBoostError as error:
            raise ConfigError(f"{folder / CATBOOST_FILE} holds no CatBoost model ({error}); train it again") from error


_READERS: dict[str, Callable[[Path, Sequence[str]], NumericRanker]] = {
    NetworkRanker.kind: NetworkRanker.read,
    LightGbmRanker.kind: LightGbmRanker.read,
    XgboostRanker.kind: XgboostRanker.read,
    CatBoostRanker.kind: CatBoostRanker.read,
}


def save_numeric_ranker(
    ranker: NumericRanker, folder: Path, *, propensities: Sequence[float] | npt.NDArray[np.float64] | None = None
) -> None:
    """Write a ranker into a folder, which is made if missing.

    Parameters
    ----------
    ranker
        Any of this module.
    folder
        Where.
    propensities
        What was learnt about slots, 1 for the most examined one, NaN for unknown ones; None where nothing was learnt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranker.write(folder)
    description = {
        "format": FORMAT,
        "kind": ranker.kind,
        "feature_names": list(ranker.feature_names),
        "propensities": None if propensities is None else [None if x != x else float(x) for x in propensities],
    }
    (folder / RANKER_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_numeric_ranker(path: str | Path) -> NumericRanker:
    """Load the ranker of a folder.

    Parameters
    ----------
    path
        What `save_numeric_ranker` filled.

    Returns
    -------
    NumericRanker
        Ready to score.

    Raises
    ------
    NotFoundError
        If the folder has no ``ranker.json``.
    ConfigError
        If what is there cannot be read.
    MissingExtraError
        If the library of its trees is not installed.
    """
    folder = Path(path)
    description = _description(folder)
    names, kind = description.get("feature_names"), description.get("kind")
    if not isinstance(names, list) or not isinstance(kind, str) or kind not in _READERS:
        raise ConfigError(f"{folder / RANKER_FILE} has kind {kind!r}; known are {', '.join(sorted(_READERS))}")
    return _READERS[kind](folder, [str(name) for name in names])


def load_propensities(path: str | Path) -> npt.NDArray[np.float64] | None:
    """Load what the ranker of a folder learnt about slots.

    Parameters
    ----------
    path
        As for `load_numeric_ranker`.

    Returns
    -------
    array or None
        float64 [K], 1 for the most examined slot, NaN for unknown ones.

    Raises
    ------
    NotFoundError
        If the folder has no ``ranker.json``.
    ConfigError
        If it cannot be read.
    """
    found = _description(Path(path)).get("propensities")
    if found is None:
        return None
    if not isinstance(found, list) or not all(value is None or isinstance(value, int | float) for value in found):
        raise ConfigError(f"the propensities in {Path(path) / RANKER_FILE} are no numbers; train the ranker again")
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def _description(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / RANKER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"no {RANKER_FILE} in {folder}; give the folder of a trained ranker") from error
    except ValueError as error:
        raise ConfigError(f"{folder / RANKER_FILE} is not JSON ({error}); train the ranker again") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError(f"{folder / RANKER_FILE} is not of format {FORMAT}; train the ranker again")
    return found


def _checked(features: npt.NDArray[np.float32], names: Sequence[str]) -> npt.NDArray[np.float32]:
    if features.ndim != 2 or features.shape[1] != len(names):
        raise InvalidInputError(f"features has shape {features.shape}; the ranker reads {len(names)} columns")
    return np.ascontiguousarray(features, dtype=np.float32)

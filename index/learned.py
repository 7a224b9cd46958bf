"""The ranker of an `ltr` stage: the live model of the registry over the stage's feature set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from index.stages import LtrSpec, ModelSource, Once
from rankers.errors import ConfigError
from rankers.ltr.feature_kinds import Encode
from rankers.ltr.features import load_feature_set
from rankers.ltr.models import load_numeric_ranker
from rankers.ltr.ranker import LtrRanker
from rankers.registry import ModelRegistry
from rankers.sources import resolve_model
from rankers.types import Document, Query

Vectors: TypeAlias = npt.NDArray[np.float32]


def load_learned(spec: LtrSpec, source: ModelSource, *, models_dir: Path, once: Once) -> LtrRanker:
    """Make the ranker of a stage.

    Parameters
    ----------
    spec
        From the configuration.
    source
        Where its model is; without a path there is none yet.
    models_dir
        The model registry.
    once
        As for `index.stages.load_ranker`.

    Returns
    -------
    LtrRanker
        Ready to rank.

    Raises
    ------
    ConfigError
        If the model cannot be read, or was trained on another feature set than the stage makes; if the set's
        statistics cannot be used.
    NotFoundError
        If the set's encoder does not exist.
    """
    feature_set = load_feature_set(spec.feature_set)
    if source.label:
        name, version = source.label.split("@")
        trained_on = ModelRegistry(models_dir).card(name, version).feature_set
        if trained_on not in {None, feature_set.id}:
            raise ConfigError(
                f"{source.label} was trained on feature set {trained_on!r}, stage {spec.name!r} makes "
                f"{feature_set.id!r}; train it on that one, or name the other in the stage"
            )
    return LtrRanker(
        load_numeric_ranker(source.path) if source.path else None,
        feature_set,
        statistics=feature_set.collection(),
        encode=_encode(feature_set.encoder, models_dir, once) if feature_set.encoder is not None else None,
        no_model_note=f"no version of model {spec.model!r} is live, so stage {spec.name!r} kept the order that came in",
    )


def _encode(name: str, models_dir: Path, once: Once) -> Encode:
    from index.encoders import Encoder

    encoder = once(("encoder", name), lambda: Encoder(resolve_model(name, models_dir=models_dir)))

    def encode(query: Query, documents: Sequence[Document]) -> tuple[Vectors, Vectors]:
        contents = [document.content for document in documents]
        return encoder.encode_queries([query.text])[0], encoder.encode_documents(contents)

    return encode

"""Learned rankers whose answers a test can tell beforehand: real networks with chosen weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from rankers.ltr.models import NetworkRanker, save_numeric_ranker
from rankers.ltr.networks import Normaliser, RankingNetwork, Scorer
from rankers.registry import ModelCard, ModelRegistry


def linear_model(weights: Mapping[str, float]) -> NetworkRanker:
    """Score by a weighted sum of features; a missing one counts as zero."""
    scorer = Scorer(len(weights), ())
    with torch.no_grad():
        last: torch.nn.Linear = scorer.layers[-1]  # type: ignore[assignment]
        last.weight.copy_(torch.tensor([list(weights.values())]))
    return NetworkRanker(RankingNetwork(Normaliser(len(weights)), scorer), tuple(weights))


def add_linear(
    registry: ModelRegistry,
    version: str,
    weights: Mapping[str, float],
    *,
    name: str = "ranker",
    promote: bool = True,
    feature_set: str | None = "default@1",
) -> Path:
    """Add a version of a ranker to a registry."""
    card = ModelCard(name, version, "ltr", "here", "Apache-2.0", "sha256:0", feature_set=feature_set)
    return registry.add(card, lambda folder: save_numeric_ranker(linear_model(weights), folder), promote)

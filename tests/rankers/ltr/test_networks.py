"""Normalised features and the layers after them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankers.errors import InvalidInputError
from rankers.ltr.networks import CLIP, Normaliser, RankingNetwork, Scorer, layer_sizes

RNG = np.random.default_rng(0)


def columns(*values: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, dtype=np.float32).T


def test_features_become_standard_scores() -> None:
    features = RNG.normal(5, 3, size=(1000, 2)).clip(0, 10).astype(np.float32)
    values = Normaliser.fit(features)(torch.from_numpy(features))
    torch.testing.assert_close(values.mean(dim=0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(dim=0, correction=0), torch.ones(2), atol=1e-4, rtol=0)


def test_long_tails_are_read_by_their_log_and_nothing_is_beyond_the_clip() -> None:
    features = np.concatenate([RNG.random(500), [1e9]])[:, None].astype(np.float32)
    normaliser = Normaliser.fit(features)
    assert normaliser.long_tailed.tolist() == [True]
    assert normaliser(torch.tensor([[1e30], [-1e30]])).squeeze(1).tolist() == [CLIP, -CLIP]


def test_missing_values_are_the_mean_with_a_mark() -> None:
    features = columns([1.0, 3.0, float("nan")], [1.0, 2.0, 3.0])
    normaliser = Normaliser.fit(features)
    assert normaliser.width == 3
    values = normaliser(torch.from_numpy(features))
    assert values[2, 0] == 0.0
    assert values[:, 2].tolist() == [0.0, 0.0, 1.0]


def test_what_never_varied_says_nothing() -> None:
    normaliser = Normaliser.fit(columns([7.0, 7.0], [float("nan"), float("nan")]))
    values = normaliser(torch.tensor([[9.0, 4.0]]))
    assert torch.isfinite(values).all()
    assert values[0, 0] == 0.0


def test_infinity_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidInputError, match="feature 1 of row 2"):
        Normaliser.fit(columns([1.0, 2.0, 3.0], [1.0, 2.0, float("inf")]))


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_a_network_comes_back_from_its_state(hidden: tuple[int, ...]) -> None:
    features = RNG.normal(size=(30, 3)).astype(np.float32)
    network = RankingNetwork(Normaliser.fit(features), Scorer(3, hidden, seed=1))
    again = RankingNetwork.of_state(network.state_dict())
    assert layer_sizes(network.state_dict()) == hidden
    torch.testing.assert_close(again(torch.from_numpy(features)), network(torch.from_numpy(features)))


def test_a_new_network_gives_all_documents_one_score_and_its_seed_decides_its_weights() -> None:
    one, same, other = (Scorer(3, (4,), seed=seed) for seed in (0, 0, 1))
    assert not one(torch.randn(5, 3)).any()
    assert torch.equal(one.state_dict()["layers.0.weight"], same.state_dict()["layers.0.weight"])
    assert not torch.equal(one.state_dict()["layers.0.weight"], other.state_dict()["layers.0.weight"])


def test_normalising_in_parts_is_normalising() -> None:
    features = RNG.normal(size=(70_000, 1)).astype(np.float32)
    network = RankingNetwork(Normaliser.fit(features), Scorer(1, ()))
    torch.testing.assert_close(network.normalised(features), network.normaliser(torch.from_numpy(features)))

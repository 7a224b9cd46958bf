"""Documents are drawn from every topic, as often as it is large, and near its centre."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from tests.index.documents import unit_vectors
from training.data.sampling import apportion, sample_diverse


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any), st.data())
def test_places_are_shared_by_size(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, sum(sizes)))
    places = apportion(np.array(sizes), count)
    assert sum(places) == count
    exact = [size * count / sum(sizes) for size in sizes]
    assert all(abs(a - b) < 1 for a, b in zip(places, exact, strict=True))
    assert all(a <= size for a, size in zip(places, sizes, strict=True))


def test_every_topic_is_drawn_from_in_proportion() -> None:
    centres = np.eye(3, 8)
    topics = np.repeat([0, 1, 2], [60, 30, 10])
    noise = 0.1 * np.random.default_rng(0).normal(size=(100, 8))
    vectors = centres[topics] + noise
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    drawn = sample_diverse(vectors, 20, clusters=3)
    assert drawn == sorted(set(drawn))
    assert np.bincount(topics[drawn]).tolist() == [12, 6, 2]
    assert drawn == sample_diverse(vectors, 20, clusters=3)
    assert drawn != sample_diverse(vectors, 20, clusters=3, seed=1)


def test_cold_draws_are_the_nearest_to_the_centre() -> None:
    vectors = unit_vectors(200, 8, clusters=1, seed=0)
    centre = vectors.mean(axis=0)
    nearest = np.argsort(-(vectors @ centre))[:10]
    assert set(sample_diverse(vectors, 10, clusters=1, temperature=1e-4)) == set(nearest.tolist())
    warm = sample_diverse(vectors, 100, clusters=1, temperature=0.1)
    assert (vectors[warm] @ centre).mean() > (vectors @ centre).mean()


def test_no_more_than_there_are() -> None:
    vectors = unit_vectors(5, 8, clusters=1, seed=0)
    assert sample_diverse(vectors, 100, clusters=100) == [0, 1, 2, 3, 4]
    for wrong in ({"count": 0}, {"clusters": 0}, {"temperature": 0.0}):
        with pytest.raises(InvalidInputError, match="must be above 0"):
            sample_diverse(vectors, **{"count": 2, "clusters": 2, **wrong})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        sample_diverse(np.empty((0, 8), np.float32), 1, clusters=1)

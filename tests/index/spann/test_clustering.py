from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.spann.clustering import choose_heads
from tests.index.spann.clouds import cloud


@settings(max_examples=25)
@given(count=st.integers(1, 300), share=st.floats(0.01, 1), seed=st.integers(0, 5))
def test_heads_are_distinct_rows(count: int, share: float, seed: int) -> None:
    heads = choose_heads(cloud(count, 4, seed=seed), max(1, int(share * count)), seed=seed)
    assert len(set(heads.tolist())) == len(heads)
    assert heads.min() >= 0
    assert heads.max() < count


def test_about_as_many_heads_as_wanted_and_balanced() -> None:
    vectors = cloud(4000)
    heads = choose_heads(vectors, 200)
    assert 160 <= len(heads) <= 260
    nearest = ((vectors[:, None] - vectors[heads][None]) ** 2).sum(axis=2).argmin(axis=1)
    sizes = np.bincount(nearest, minlength=len(heads))
    assert sizes.max() < 8 * sizes.mean()


def test_heads_are_nearer_than_random_ones() -> None:
    vectors = cloud(3000)
    heads = choose_heads(vectors, 60)
    others = np.random.default_rng(0).choice(len(vectors), len(heads), replace=False)

    def spread(rows: npt.NDArray[np.int64]) -> float:
        return float(((vectors[:, None] - vectors[rows][None]) ** 2).sum(axis=2).min(axis=1).mean())

    assert spread(heads) < 0.9 * spread(others)


def test_equal_vectors_end_in_one_head() -> None:
    assert len(choose_heads(np.ones((500, 3), np.float32), 50)) == 1


def test_half_of_the_vectors_equal() -> None:
    vectors = np.concatenate((np.ones((500, 4), np.float32), cloud(500, 4)))
    heads = choose_heads(vectors, 100)
    assert len(set(heads.tolist())) == len(heads)
    assert (heads >= 500).sum() > 20


def test_the_same_seed_gives_the_same_heads() -> None:
    vectors = cloud(1000)
    np.testing.assert_array_equal(choose_heads(vectors, 50, seed=3), choose_heads(vectors, 50, seed=3))


@pytest.mark.parametrize("count", [1, 400])
def test_one_head_and_all_heads(count: int) -> None:
    assert len(choose_heads(cloud(400), count)) == pytest.approx(count, rel=0.1)


def test_progress_ends_at_all_vectors() -> None:
    seen: list[tuple[str, int, int]] = []
    choose_heads(cloud(500), 40, on_progress=lambda *step: seen.append(step))
    assert seen[-1] == ("heads", 500, 500)

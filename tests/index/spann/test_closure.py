from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from index.spann.closure import assign_replicas
from index.spann.heads import HeadIndex
from tests.index.spann.clouds import cloud


def by_the_rule(
    vector: npt.NDArray[np.float32], heads: npt.NDArray[np.float32], replicas: int, factor: float, candidates: int
) -> list[int]:
    """The rule as it is written down, one vector at a time."""
    to_vector = np.linalg.norm(heads - vector, axis=1)
    chosen: list[int] = []
    for head in np.argsort(to_vector, kind="stable")[:candidates].tolist():
        near = any(factor * np.linalg.norm(heads[head] - heads[s]) < to_vector[head] for s in chosen)
        if not near and len(chosen) < replicas:
            chosen.append(head)
    return chosen


@pytest.mark.parametrize("replicas", [1, 4, 8])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_replicas_follow_the_rule(replicas: int, factor: float) -> None:
    heads, vectors = cloud(100, 6, seed=1), cloud(40, 6, seed=2)
    index = HeadIndex.build(heads, "l2")
    closure = assign_replicas(vectors, index, replicas=replicas, rng_factor=factor)
    candidates = max(8, 3 * replicas)
    for vector, row in zip(vectors, closure.tolist(), strict=True):
        assert [head for head in row if head >= 0] == by_the_rule(vector, heads, replicas, factor, candidates)


def test_a_head_is_in_its_own_posting() -> None:
    heads = cloud(300)
    closure = assign_replicas(heads, HeadIndex.build(heads, "l2"), replicas=4)
    np.testing.assert_array_equal(closure[:, 0], np.arange(300))


def test_every_vector_has_a_posting_when_heads_are_fewer_than_replicas() -> None:
    closure = assign_replicas(cloud(50), HeadIndex.build(cloud(2), "l2"), replicas=8)
    assert closure.shape == (50, 8)
    assert (closure[:, 0] >= 0).all()


def test_equal_heads_do_not_all_take_a_vector() -> None:
    index = HeadIndex.build(np.ones((10, 3), np.float32), "l2")
    closure = assign_replicas(np.zeros((1, 3), np.float32), index, replicas=4)
    assert (closure >= 0).sum() == 1

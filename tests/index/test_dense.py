from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.dense import DenseIndex, DenseKind
from rankers.errors import InvalidInputError
from tests.index.documents import unit_vectors

KINDS: tuple[DenseKind, ...] = ("flat", "hnsw")


def names(count: int) -> list[str]:
    return [f"d{i}" for i in range(count)]


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 30), st.integers(1, 70), st.integers(0, 10_000))
def test_flat_equals_brute_force(count: int, dimensions: int, batch: int, k: int, seed: int) -> None:
    vectors = unit_vectors(count, dimensions, clusters=3, seed=seed)
    queries = unit_vectors(batch, dimensions, clusters=3, seed=seed + 1)
    found = DenseIndex.build(vectors, names(count)).search(queries, k)
    similarities = queries @ vectors.T
    for row, expected in zip(found, similarities, strict=True):
        assert len({document_id for document_id, _ in row}) == len(row) == min(k, count)
        scores = [score for _, score in row]
        # Ties may be broken either way at the end: scores are compared by place, and each with its own document's.
        np.testing.assert_allclose(scores, np.sort(expected)[::-1][: len(row)], atol=1e-5)
        np.testing.assert_allclose(scores, [expected[int(document_id[1:])] for document_id, _ in row], atol=1e-5)
        assert scores == sorted(scores, reverse=True)


def test_the_graph_finds_nearly_all_true_neighbours() -> None:
    vectors = unit_vectors(5000, 32, clusters=50, seed=1)
    queries = unit_vectors(200, 32, clusters=50, seed=2)
    flat = DenseIndex.build(vectors, names(5000)).search(queries, 10)
    graph = DenseIndex.build(vectors, names(5000), "hnsw").search(queries, 10)
    found = [
        len({name for name, _ in true} & {name for name, _ in near}) for true, near in zip(flat, graph, strict=True)
    ]
    assert np.mean(found) / 10 >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_come_in_input_order(kind: DenseKind) -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), [3, 5], axis=0)
    (hits,) = DenseIndex.build(vectors, names(8), kind).search(np.array([[0, 1]], dtype=np.float32), 8)
    assert [name for name, _ in hits] == ["d3", "d4", "d5", "d6", "d7", "d0", "d1", "d2"]


@pytest.mark.parametrize("kind", KINDS)
def test_load_gives_what_was_saved(tmp_path: Path, kind: DenseKind) -> None:
    vectors = unit_vectors(300, 8, clusters=4, seed=0)
    built = DenseIndex.build(vectors, names(300), kind)
    built.save(tmp_path / "dense")
    loaded = DenseIndex.load(tmp_path / "dense")
    assert (loaded.kind, loaded.dimensions, loaded.ids) == (kind, 8, built.ids)
    assert loaded.search(vectors[:20], 50) == built.search(vectors[:20], 50)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_index_finds_nothing(tmp_path: Path, kind: DenseKind) -> None:
    DenseIndex.build(np.empty((0, 4), dtype=np.float32), [], kind).save(tmp_path)
    index = DenseIndex.load(tmp_path)
    assert index.search(np.ones((2, 4), dtype=np.float32), 3) == [[], []]
    assert len(index) == 0


def test_no_query_has_no_hits() -> None:
    index = DenseIndex.build(unit_vectors(3, 4, clusters=1, seed=0), names(3))
    assert index.search(np.empty((0, 4), dtype=np.float32), 3) == []


def test_refuses_what_it_cannot_index() -> None:
    vectors = unit_vectors(3, 4, clusters=1, seed=0)
    with pytest.raises(InvalidInputError, match=r"2 ids need vectors \[2, D\], got shape \(3, 4\)"):
        DenseIndex.build(vectors, names(2))
    with pytest.raises(InvalidInputError, match="occurs twice"):
        DenseIndex.build(vectors, ["a", "b", "a"])
    with pytest.raises(InvalidInputError, match="'d1' is not finite"):
        DenseIndex.build(np.where(np.arange(3)[:, None] == 1, np.float32("nan"), vectors), names(3))
    unknown: DenseKind = "ivf"  # type: ignore[assignment]
    with pytest.raises(InvalidInputError, match="no dense index 'ivf'"):
        DenseIndex.build(vectors, names(3), unknown)


def test_refuses_queries_that_do_not_fit() -> None:
    index = DenseIndex.build(unit_vectors(3, 4, clusters=1, seed=0), names(3))
    with pytest.raises(InvalidInputError, match=r"4 dimensions, the query vectors have shape \(1, 5\)"):
        index.search(np.ones((1, 5), dtype=np.float32), 1)
    with pytest.raises(InvalidInputError, match="not finite"):
        index.search(np.full((1, 4), np.nan, dtype=np.float32), 1)

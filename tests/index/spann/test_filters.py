"""Filters over vectors: what is found of what is allowed, at every selectivity, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.dense import DenseIndex, VectorIndex
from index.spann.building import build_index
from index.spann.live import SpannIndex
from index.spann.vectors import ArrayStream
from rankers.errors import NotReadyError
from rankers.filters import Filter, parse_filter
from tests.index.documents import unit_vectors

ROWS, DIMENSIONS, K = 21_000, 16, 10
"""So many that half of them are too many to compare them all."""
SHARES = (0.5, 0.1, 0.01, 0.001)
VECTORS = unit_vectors(ROWS, DIMENSIONS, clusters=100, seed=0)
QUERIES = unit_vectors(50, DIMENSIONS, clusters=100, seed=1)
ORDER = np.random.default_rng(2).permutation(ROWS)
METADATA = [{"place": int(place), "tags": ["even" if place % 2 == 0 else "odd"]} for place in ORDER]
IDS = [f"d{i}" for i in range(ROWS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("filters")


@pytest.fixture(scope="module")
def spann(folder: Path) -> Iterator[SpannIndex]:
    build_index(folder / "spann", zip(IDS, METADATA, strict=True), ArrayStream(VECTORS))
    with SpannIndex.open(folder / "spann", merge_rows=None) as index:
        yield index


@pytest.fixture(scope="module")
def graph(folder: Path) -> DenseIndex:
    index = DenseIndex.build(VECTORS, IDS, "hnsw", metadata=METADATA, m=16, ef_construction=100, ef_search=128)
    index.save(folder / "hnsw")
    return DenseIndex.load(folder / "hnsw")


def share_of(share: float) -> Filter:
    return parse_filter({"field": "place", "lt": share * ROWS})


def recall(index: VectorIndex, condition: Filter, allowed: npt.NDArray[np.bool_]) -> float:
    """Mean recall at K against comparing with all allowed rows; fails for a hit that is not allowed."""
    rows = np.flatnonzero(allowed)
    similarities = QUERIES @ VECTORS[rows].T
    found = 0
    for hits, row in zip(index.search(QUERIES, K, condition=condition), similarities, strict=True):
        assert {int(name[1:]) for name, _ in hits} <= set(rows.tolist())
        assert len({name for name, _ in hits}) == len(hits) == min(K, len(rows))
        least = np.sort(row)[::-1][len(hits) - 1]
        found += sum(score >= least - 1e-5 for _, score in hits)
    return found / (len(QUERIES) * min(K, len(rows)))


@pytest.mark.parametrize("share", SHARES)
def test_an_index_on_disk_finds_what_is_allowed(spann: SpannIndex, share: float) -> None:
    assert recall(spann, share_of(share), share * ROWS > ORDER) >= (0.95 if share == 0.5 else 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_a_flat_index_and_a_graph_find_what_is_allowed(graph: DenseIndex, share: float) -> None:
    flat = DenseIndex.build(VECTORS, IDS, metadata=METADATA)
    assert recall(flat, share_of(share), share * ROWS > ORDER) == 1.0
    assert recall(graph, share_of(share), share * ROWS > ORDER) >= (0.95 if share == 0.5 else 1.0)


def test_conditions_combine(spann: SpannIndex, graph: DenseIndex) -> None:
    condition = parse_filter(
        {
            "and": [
                {"field": "tags", "eq": "odd"},
                {"or": [{"field": "place", "lt": 700}, {"field": "place", "in": [20_001, 20_002]}]},
                {"not": {"field": "place", "gte": 300, "lt": 500}},
            ]
        }
    )
    allowed = (ORDER % 2 == 1) & ((ORDER < 700) | np.isin(ORDER, [20_001, 20_002])) & ~((ORDER >= 300) & (ORDER < 500))
    for index in (spann, graph):
        assert recall(index, condition, allowed) == 1.0


def test_where_nothing_is_allowed_nothing_is_found(spann: SpannIndex, graph: DenseIndex) -> None:
    for index in (spann, graph):
        for content in ({"field": "place", "gt": ROWS}, {"field": "unknown", "eq": 1}, {"field": "place", "eq": "3"}):
            assert index.search(QUERIES[:2], K, condition=parse_filter(content)) == [[], []]


def test_what_is_written_later_is_filtered_too(folder: Path, spann: SpannIndex) -> None:
    spann.snapshot(folder / "copy")
    with SpannIndex.open(folder / "copy", merge_rows=None) as index:
        wanted = parse_filter({"field": "place", "lt": 21})
        rows = np.flatnonzero(ORDER < 21)
        index.delete([IDS[row] for row in rows[:10]])
        index.replace(["new", IDS[rows[10]]], VECTORS[:2], [{"place": 3}, {"place": 10_000}])
        expected = {IDS[row] for row in rows[11:]} | {"new"}
        (hits,) = index.search(QUERIES[:1], 100, condition=wanted)
        assert {name for name, _ in hits} == expected
        everything = {"not": {"field": "place", "lt": 21}}
        (hits,) = index.search(QUERIES[:1], 100, condition=parse_filter(everything))
        assert not {name for name, _ in hits} & expected


def test_an_index_from_before_there_were_filters_says_so(folder: Path, graph: DenseIndex) -> None:
    graph.save(folder / "old")
    (folder / "old" / "columns.bin").unlink()
    old = DenseIndex.load(folder / "old")
    assert len(old.search(QUERIES[:1], 3)[0]) == 3
    with pytest.raises(NotReadyError, match="before there were filters; run: shortlist index build"):
        old.search(QUERIES[:1], 3, condition=share_of(0.1))

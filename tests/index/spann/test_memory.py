"""What a search holds in memory keeps to the budget, whatever is written."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from index.spann import memory
from index.spann.building import build_index
from index.spann.check import check
from index.spann.delta import Delta
from index.spann.live import SpannIndex
from index.spann.parameters import Codec, SpannParameters
from index.spann.segment import Segment
from index.spann.vectors import ArrayStream
from rankers.errors import InvalidInputError, StorageError
from tests.index.spann.clouds import cloud

D = 32


def built(root: Path, count: int, **given: object) -> Path:
    parameters = SpannParameters(**given)  # type: ignore[arg-type]
    rows: list[tuple[str, dict[str, object]]] = [(f"d{i}", {}) for i in range(count)]
    build_index(root, rows, ArrayStream(cloud(count, D)), parameters=parameters)
    return root


@pytest.mark.parametrize("codec", ["pq", "sq8", "float32", "rabitq"])
def test_the_arithmetic_is_what_a_segment_holds(tmp_path: Path, codec: Codec) -> None:
    built(tmp_path / "i", 9000, codec=codec, head_ratio=0.1)
    with SpannIndex.open(tmp_path / "i", read_only=True) as index:
        segment = index.segments[0].segment
        assert segment.head_count > 600
        expected = memory.structure_bytes(segment.head_count, D, codec)
        assert segment.memory_bytes == pytest.approx(expected, rel=0.03)
        assert segment.memory_bytes <= expected + 2048  # codes come in blocks of 32


def test_a_graph_over_the_heads_takes_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.spann.heads.SCANNED_HEADS", 400)
    monkeypatch.setattr(memory, "SCANNED_HEADS", 400)
    built(tmp_path / "i", 9000, head_ratio=0.1)
    segment = Segment.open(tmp_path / "i" / "segments" / "000001" / "vectors")
    expected = memory.structure_bytes(segment.head_count, D, "pq")
    assert segment.memory_bytes == pytest.approx(expected, rel=0.05)
    assert segment.memory_bytes <= expected


def test_rows_of_the_delta_buffer_take_no_more_than_is_said() -> None:
    count = 5000
    vectors = cloud(count, D)
    ids = [f"document-{i}" for i in range(count)]
    metadata: list[dict[str, object]] = [{} for _ in ids]
    tracemalloc.start()
    delta = Delta(D, "ip")
    for start in range(0, count, 50):
        part = slice(start, start + 50)
        delta.append([str(name) for name in ids[part]], vectors[part], metadata[part])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held <= memory.delta_bytes(count, D)
    assert delta.memory_bytes <= memory.delta_bytes(count, D)


@pytest.mark.parametrize("budget_mb", [0.35, 0.6, 4.0])
def test_an_index_keeps_to_its_budget_while_it_is_written_to(tmp_path: Path, budget_mb: float) -> None:
    vectors = cloud(9000, D, seed=1)
    most: list[int] = []
    built(tmp_path / "i", 6000, max_memory_mb=budget_mb, metric="cosine")
    with SpannIndex.open(tmp_path / "i") as index:
        most.append(index.memory_bytes)
        for start in range(0, 3000, 40):
            names = [f"n{i}" for i in range(start, start + 40)]
            index.replace(names, vectors[start : start + 40])
            index.delete([f"d{i}" for i in range(start // 2, start // 2 + 10)])
            most.append(index.memory_bytes)
        index.settle()
        assert index.merge_error is None
        assert len(index) == 6000 + 3000 - 750
        (hits,) = index.search(vectors[:1], 10)
        assert hits[0][0] == "n0"
    assert max(most) <= budget_mb * 1e6
    assert check(tmp_path / "i") == []


def test_more_memory_gives_more_heads(tmp_path: Path) -> None:
    heads = []
    for budget in (0.22, 0.26, 0.3):
        with SpannIndex.open(built(tmp_path / str(budget), 6000, max_memory_mb=budget), read_only=True) as index:
            heads.append(index.segments[0].segment.head_count)
    assert 0 < heads[0] < heads[1] < heads[2] <= 960


def test_the_budget_chooses_the_codec_unless_one_is_named(tmp_path: Path) -> None:
    def codecs(**given: object) -> list[Codec | None]:
        root = built(tmp_path / str(len(list(tmp_path.iterdir()))), 6000, **given)
        with SpannIndex.open(root, read_only=True) as index:
            return [source.segment.parameters.codec for source in index.segments]

    assert codecs() == ["pq"]
    assert codecs(max_memory_mb=0.18) == ["pq"]
    assert codecs(max_memory_mb=0.4) == ["sq8"]
    assert codecs(max_memory_mb=0.4, codec="rabitq") == ["rabitq"]


def test_segments_of_several_codecs_are_one_index(tmp_path: Path) -> None:
    """An index that grows has fewer heads per vector of the same budget, and so another codec from then on."""
    first, more, budget = cloud(12_000, D), cloud(2700, D, seed=1), 0.225

    def codecs(index: SpannIndex) -> list[Codec | None]:
        return [source.segment.parameters.codec for source in index.segments]

    def found(index: SpannIndex) -> list[str]:
        queries = np.concatenate((first[::3000], more[::900]))
        return [hits[0][0] for hits in index.search(queries, 1)]

    expected = [*(f"d{i}" for i in range(0, 12_000, 3000)), *(f"n{i}" for i in range(0, 2700, 900))]
    root = built(tmp_path / "i", 12_000, max_memory_mb=budget, metric="cosine")
    with SpannIndex.open(root, merge_rows=None) as index:
        assert codecs(index) == ["sq8"]
        index.add([f"n{i}" for i in range(2700)], more)
        index.merge()
        assert codecs(index) == ["sq8", "pq"]
        assert index.memory_bytes <= budget * 1e6
        assert found(index) == expected
        index.snapshot(tmp_path / "snapshot")
    assert check(root) == []
    with SpannIndex.open(tmp_path / "snapshot", verify=True) as index:
        assert (codecs(index), found(index)) == (["sq8", "pq"], expected)
        index.merge(full=True)
        assert (codecs(index), found(index)) == (["pq"], expected)
    assert check(tmp_path / "snapshot") == []


def test_an_impossible_budget_is_refused_with_the_least_one(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"6,000 vectors of 32 dimensions need max_memory_mb of at least 0.2, got 0.1"
    ):
        built(tmp_path / "i", 6000, max_memory_mb=0.1)
    built(tmp_path / "i", 6000, max_memory_mb=0.2)
    for dimensions in (64, 384, 768):
        for vectors in (50_000, 1_000_000, 1_000_000_000):
            with pytest.raises(InvalidInputError, match="at least") as refused:
                SpannParameters(max_memory_mb=0.01).heads(vectors, dimensions)
            least = float(str(refused.value).split("at least ")[1].split(",")[0])
            assert SpannParameters(max_memory_mb=least).heads(vectors, dimensions) >= 0.002 * vectors
            with pytest.raises(InvalidInputError):
                SpannParameters(max_memory_mb=least - 0.2).heads(vectors, dimensions)
    with pytest.raises(InvalidInputError, match="max_memory_mb must be over 0"):
        SpannParameters(max_memory_mb=0.0)
    with pytest.raises(InvalidInputError, match="at least"):
        SpannParameters(max_memory_mb=0.5, head_ratio=0.9).heads(6000, D)


def test_an_index_that_outgrows_its_budget_says_so(tmp_path: Path) -> None:
    built(tmp_path / "i", 3000, max_memory_mb=0.25, head_ratio=0.1)
    vectors = cloud(9000, D, seed=2)

    def add_all(index: SpannIndex) -> None:
        for start in range(0, 9000, 1000):
            index.add([f"n{i}" for i in range(start, start + 1000)], vectors[start : start + 1000])

    with SpannIndex.open(tmp_path / "i") as index:
        with pytest.raises(StorageError, match=r"cannot be merged: .* need max_memory_mb of at least"):
            add_all(index)
        held = len(index)
        assert np.isfinite([score for _, score in index.search(vectors[:1], 5)[0]]).all()
    with SpannIndex.open(tmp_path / "i", read_only=True) as again:
        assert len(again) == held

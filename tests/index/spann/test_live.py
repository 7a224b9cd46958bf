"""An index that is written to while it is searched."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.spann.building import build_index, restore
from index.spann.check import check
from index.spann.live import SpannIndex
from index.spann.merging import choose
from index.spann.parameters import Codec, Metric, SpannParameters
from index.spann.parts import Part, SegmentSource
from index.spann.vectors import ArrayStream
from rankers.errors import InvalidInputError, NotReadyError, OverloadedError, StorageError
from rankers.filters import parse_filter
from tests.index.documents import unit_vectors
from tests.index.spann.race import DIMENSIONS as D
from tests.index.spann.race import Race, drawn, names
from tests.index.spann.test_wal import no_file_over

METRICS: tuple[Metric, ...] = ("ip", "cosine", "l2")
Vectors = npt.NDArray[np.float32]


def made(root: Path, count: int, metric: Metric = "ip") -> Path:
    rows = [(name, {"n": i}) for i, name in enumerate(names(count))]
    build_index(root, rows, ArrayStream(drawn(count)), parameters=SpannParameters(metric=metric))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return made(tmp_path / "index", 50)


@pytest.fixture
def index(root: Path) -> Iterator[SpannIndex]:
    with SpannIndex.open(root, merge_rows=None) as opened:
        yield opened


def scores(query: Vectors, vectors: Vectors, metric: Metric) -> Vectors:
    if metric == "l2":
        distances: Vectors = -((vectors - query) ** 2).sum(axis=1)
        return distances
    if metric == "cosine":
        query, vectors = query / np.linalg.norm(query), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ query


def check_equals(index: SpannIndex, model: dict[str, Vectors], queries: Vectors, k: int) -> None:
    """Compare with brute force over the model; equal scores may come in any order."""
    held = list(model)
    for query, found in zip(queries, index.search(queries, k), strict=True):
        expected = scores(query, np.stack([model[name] for name in held]), index.metric) if held else query[:0]
        by_name = dict(zip(held, expected.tolist(), strict=True))
        assert len(found) == min(k, len(held))
        assert len({name for name, _ in found}) == len(found)
        np.testing.assert_allclose([score for _, score in found], np.sort(expected)[::-1][: len(found)], atol=1e-4)
        np.testing.assert_allclose([score for _, score in found], [by_name[name] for name, _ in found], atol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_any_writes_equal_brute_force(tmp_path: Path, metric: Metric) -> None:
    """A hundred random writes, with merges, snapshots and reopening between, against a dictionary."""
    choose_from = random.Random(len(metric))
    root = made(tmp_path / "index", 50, metric)
    model = dict(zip(names(50), drawn(50), strict=True))
    queries = drawn(3, seed=9)
    index = SpannIndex.open(root, merge_rows=None)
    for step in range(120):
        ids = [f"d{i}" for i in choose_from.sample(range(80), choose_from.randint(1, 6))]
        vectors = drawn(len(ids), seed=step + 100)
        match choose_from.randrange(6):
            case 0:
                assert index.delete(ids) == sum(name in model for name in ids)
                model = {name: vector for name, vector in model.items() if name not in ids}
            case 1:
                index.merge(full=choose_from.random() < 0.5)
            case 2:
                index.close()
                index = SpannIndex.open(root, merge_rows=None, verify=True)
            case 3:
                new = [name for name in ids if name not in model]
                index.add(new, vectors[: len(new)])
                model |= zip(new, vectors[: len(new)], strict=True)
            case _:
                index.replace(ids, vectors)
                model |= zip(ids, vectors, strict=True)
        assert len(index) == len(model)
        assert sorted(index.ids()) == sorted(model)
        check_equals(index, model, queries, choose_from.choice([1, 5, 200]))
    fetched = index.fetch([*model, "nobody"])
    assert fetched.keys() == model.keys()
    np.testing.assert_array_equal(index.vectors(list(model)), [fetched[name][0] for name in model])
    with pytest.raises(KeyError, match="nobody"):
        index.vectors(["nobody"])
    index.close()
    assert check(root) == []


def test_writes_are_visible_at_once_and_merges_change_nothing(index: SpannIndex) -> None:
    query = drawn(1)
    index.add(["new"], query * 9, [{"n": -1}])
    assert index.search(query, 1)[0][0][0] == "new"
    index.replace(["new"], query * -9)
    assert "new" not in [name for name, _ in index.search(query, 10)[0]]
    index.delete(["d0"])
    before = index.search(query, 60)
    index.merge()
    after = index.search(query, 60)
    assert [name for name, _ in after[0]] == [name for name, _ in before[0]]
    assert (len(index.segments), index.delta_rows, len(index)) == (1, 0, 50)


def test_everything_can_be_deleted_and_written_again(index: SpannIndex, root: Path) -> None:
    assert index.delete(names(60)) == 50
    assert index.search(drawn(2), 3) == [[], []]
    index.merge()
    assert (index.segments, len(index)) == ((), 0)
    index.add(["a"], drawn(1))
    index.close()
    with SpannIndex.open(root) as again:
        assert list(again.ids()) == ["a"]


def test_an_index_may_be_empty(tmp_path: Path) -> None:
    build_index(tmp_path / "i", [], ArrayStream(np.empty((0, D), np.float32)))
    with SpannIndex.open(tmp_path / "i", merge_rows=None) as index:
        assert (len(index), index.dimensions, index.search(drawn(2), 5)) == (0, D, [[], []])
        index.merge(full=True)
        index.add(["a", "b"], drawn(2))
        assert [name for name, _ in index.search(drawn(1), 100)[0]] == ["a", "b"]
        index.add([], np.empty((0, D), np.float32))
        assert index.delete([]) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors_are_all_found(tmp_path: Path, metric: Metric) -> None:
    rows: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in names(3000)]
    build_index(
        tmp_path / "i",
        rows,
        ArrayStream(np.ones((3000, D), np.float32)),
        parameters=SpannParameters(metric=metric),
    )
    with SpannIndex.open(tmp_path / "i", merge_rows=None) as index:
        index.add(["x"], np.ones((1, D), np.float32))
        (hits,) = index.search(np.ones((1, D), np.float32), 10)
        assert len({name for name, _ in hits}) == 10
        index.delete(names(2990))
        index.merge()
        assert {name for name, _ in index.search(np.ones((1, D), np.float32), 50)[0]} == {"x", *names(3000)[2990:]}


Write = Callable[[SpannIndex], Any]
BAD_WRITES: list[tuple[Write, str]] = [
    (lambda i: i.add(["x"], np.full((1, D), np.nan, np.float32)), "the vector of 'x' is not finite"),
    (lambda i: i.add(["y", "x"], np.stack([drawn(1)[0], np.full(D, np.inf)])), "the vector of 'x' is not finite"),
    (lambda i: i.add(["x"], np.full((1, D), 1e300)), "the vector of 'x' is not finite"),
    (lambda i: i.add(["x"], drawn(1)[:, :3]), r"need vectors \[1, 8\], got shape \(1, 3\)"),
    (lambda i: i.add(["x"], drawn(1)[0]), r"got shape \(8,\)"),
    (lambda i: i.add(["x", "y"], drawn(1)), r"2 ids need vectors \[2, 8\]"),
    (lambda i: i.add(["x", "x"], drawn(2)), "'x' occurs twice in one call"),
    (lambda i: i.add(["x", "d3"], drawn(2)), "'d3' is in the index; use replace"),
    (lambda i: i.add([""], drawn(1)), "must be a string that is not empty"),
    (lambda i: i.replace("x", drawn(1)), "ids is the string 'x'"),
    (lambda i: i.replace(["x"], drawn(1), []), "as many metadata, got 0"),
    (lambda i: i.replace(["x"], drawn(1), [{"a": {1}}]), "metadata of 'x' is not JSON"),
    (lambda i: i.replace(["x"], drawn(1), [{"a": float("inf")}]), "metadata of 'x' is not JSON"),
    (lambda i: i.delete(["d1", "d1"]), "'d1' occurs twice"),
]


@pytest.mark.parametrize(("write", "message"), BAD_WRITES)
def test_what_cannot_be_indexed_is_refused_and_changes_nothing(index: SpannIndex, write: Write, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        write(index)
    assert (len(index), index.delta_rows) == (50, 0)


def test_queries_that_do_not_fit_are_refused(index: SpannIndex, tmp_path: Path) -> None:
    for query, k, message in (
        (np.ones((1, 5), np.float32), 1, r"8 dimensions, the query vectors have shape \(1, 5\)"),
        (np.full((1, D), np.nan, np.float32), 1, "query vector 0 is not finite"),
        (np.ones((1, D), np.float32), 0, "k is 0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            index.search(query, k)
    assert index.search(np.empty((0, D), np.float32), 3) == []
    with SpannIndex.open(made(tmp_path / "cosine", 5, "cosine")) as cosine:
        for refused in (cosine.search, lambda zero, _: cosine.add(["x"], zero)):
            with pytest.raises(InvalidInputError, match="is zero, which has no cosine"):
                refused(np.zeros((1, D), np.float32), 1)


def test_what_cannot_be_built_is_refused(tmp_path: Path, root: Path) -> None:
    rows: list[tuple[str, dict[str, Any]]] = [("a", {}), ("b", {}), ("a", {})]
    with pytest.raises(InvalidInputError, match="'a' occurs twice"):
        build_index(tmp_path / "x", rows, ArrayStream(drawn(3)))
    with pytest.raises(InvalidInputError, match="there are 3 ids and 2 vectors"):
        build_index(tmp_path / "y", [*rows[:2], ("c", {})], ArrayStream(drawn(2)))
    with pytest.raises(InvalidInputError, match="there is an index at"):
        build_index(root, rows[:1], ArrayStream(drawn(1)))
    with pytest.raises(NotReadyError, match="there is no index at"):
        SpannIndex.open(tmp_path / "nowhere")
    with pytest.raises(NotReadyError, match="CURRENT is missing"):
        SpannIndex.open(tmp_path / "x")


def test_recall_after_updates_and_a_merge_is_that_of_a_fresh_build(tmp_path: Path) -> None:
    """40% inserts and 20% deletes: the merged index finds as much as one that is built of the same vectors."""
    vectors = unit_vectors(7000, 24, clusters=40, seed=3)
    queries = unit_vectors(200, 24, clusters=40, seed=3 + 1)
    held = names(7000)
    random_order = np.random.default_rng(0)
    deleted = random_order.choice(5000, 1000, replace=False)
    kept = np.setdiff1d(np.arange(7000), deleted)
    build_index(tmp_path / "updated", [(n, {}) for n in held[:5000]], ArrayStream(vectors[:5000]))
    build_index(tmp_path / "fresh", [(held[i], {}) for i in kept], ArrayStream(vectors[kept]))
    true = np.argsort(-(queries @ vectors[kept].T), axis=1, kind="stable")[:, :10]
    with SpannIndex.open(tmp_path / "updated", merge_rows=None) as updated:
        for start in range(5000, 7000, 500):
            updated.add(held[start : start + 500], vectors[start : start + 500])
        updated.delete([held[i] for i in deleted])
        assert recall(updated, queries, [{held[kept[i]] for i in row} for row in true]) > 0.9
        updated.merge(full=True)
        merged = recall(updated, queries, [{held[kept[i]] for i in row} for row in true])
        assert not {held[i] for i in deleted} & set(updated.ids())
    with SpannIndex.open(tmp_path / "fresh") as fresh:
        assert merged >= recall(fresh, queries, [{held[kept[i]] for i in row} for row in true]) - 0.005


@pytest.mark.parametrize("codec", ["rabitq", "sq8"])
def test_merges_snapshots_and_repairs_keep_the_codec(tmp_path: Path, codec: Codec) -> None:
    def codecs(index: SpannIndex) -> list[Codec | None]:
        return [source.segment.parameters.codec for source in index.segments]

    root, more = tmp_path / "index", [f"x{i}" for i in range(3000)]
    rows: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in names(2500)]
    parameters = SpannParameters(metric="cosine", codec=codec, max_memory_mb=0.5)
    build_index(root, rows, ArrayStream(drawn(2500)), parameters=parameters)
    with SpannIndex.open(root, merge_rows=None) as index:
        index.add(more, drawn(3000, seed=1))
        index.merge(full=True)
        index.snapshot(tmp_path / "snapshot")
        assert (len(index), codecs(index)) == (5500, [codec])
    next(root.glob("segments/*/vectors/postings.bin")).unlink()
    assert any(finding.repaired for finding in check(root, repair=True))
    restore(tmp_path / "snapshot", tmp_path / "again")
    for folder in (root, tmp_path / "again"):
        with SpannIndex.open(folder, verify=True) as index:
            assert codecs(index) == [codec]
            assert [hits[0][0] for hits in index.search(drawn(3000, seed=1)[::500], 1)] == more[::500]


def recall(index: SpannIndex, queries: Vectors, true: Sequence[set[str]]) -> float:
    found = index.search(queries, 10)
    return float(np.mean([len(names & {n for n, _ in row}) / 10 for names, row in zip(true, found, strict=True)]))


def test_segments_of_like_size_are_merged_together(tmp_path: Path) -> None:
    def sizes(*segments: tuple[int, int], new: int, full: bool = False) -> list[int]:
        parts = []
        for count, dead in segments:
            live = np.packbits(np.arange(count) >= dead, bitorder="little")
            parts.append(Part(source, live, count))
        return [part.count for part in choose(parts, new, full=full)]

    with SpannIndex.open(made(tmp_path / "i", 3), read_only=True) as index:
        source: SegmentSource = index.segments[0]
        assert sizes((10_000, 0), new=1000) == []
        assert sizes((10_000, 0), (3000, 0), new=1000) == [10_000, 3000]
        assert sizes((50_000, 0), (3000, 0), new=1000) == [3000]
        assert sizes((3000, 0), new=1) == []
        assert sizes((2000, 0), new=1) == [2000]
        assert sizes((50_000, 20_000), (9000, 0), new=1) == [50_000]
        assert sizes((50_000, 0), (3000, 0), new=0, full=True) == [50_000, 3000]


def test_many_deletions_are_merged_too(root: Path) -> None:
    with SpannIndex.open(root, merge_rows=10) as index:
        index.delete(names(20))
        index.settle()
        assert [len(segment) for segment in index.segments] == [30]


def test_an_old_segment_goes_with_its_last_search(index: SpannIndex, root: Path) -> None:
    segment = index.segments[0]
    folder = segment.folder
    index.delete(["d1"])
    index.merge(full=True)
    assert folder.is_dir()
    assert segment.vectors(np.array([3])).shape == (1, D)
    del segment
    assert not folder.exists()
    assert len(list((root / "segments").iterdir())) == 1


def test_one_process_writes_and_others_read(index: SpannIndex, root: Path) -> None:
    with pytest.raises(OverloadedError, match="open for writing elsewhere"):
        SpannIndex.open(root)
    index.delete(["d0"])
    with SpannIndex.open(root, read_only=True) as reader:
        assert len(reader) == 49
        index.add(["x"], drawn(1))
        index.merge(full=True)
        assert len(reader) == 49
        assert len(reader.search(drawn(1), 100)[0]) == 49  # its files are gone by name, not for it
        with pytest.raises(NotReadyError, match="open read-only"):
            reader.delete(["d2"])
    index.close()
    for refused in (lambda: index.search(drawn(1), 1), lambda: index.add(["z"], drawn(1))):
        with pytest.raises(NotReadyError, match="has been closed"):
            refused()
    SpannIndex.open(root).close()


def test_a_snapshot_stands_on_its_own(index: SpannIndex, root: Path, tmp_path: Path) -> None:
    index.replace(["d1", "x"], drawn(2, seed=5), [{"n": 1}, {"n": 2}])
    index.merge()
    index.delete(["d2"])
    held = index.fetch(list(index.ids()))
    index.snapshot(tmp_path / "snapshot")
    with pytest.raises(InvalidInputError, match="snapshot exists"):
        index.snapshot(tmp_path / "snapshot")
    index.delete(names(50))
    index.merge(full=True)
    assert check(tmp_path / "snapshot") == []
    restore(tmp_path / "snapshot", tmp_path / "again")
    with SpannIndex.open(tmp_path / "again", verify=True) as again:
        found = again.fetch(list(again.ids()))
        assert found.keys() == held.keys()
        assert all(found[name][1] == held[name][1] for name in held)
        assert all(np.array_equal(found[name][0], held[name][0]) for name in held)
        again.delete(["x"])
    with SpannIndex.open(tmp_path / "snapshot", read_only=True) as snapshot:
        assert len(snapshot) == 50  # what happens to a copy is not its business
    with pytest.raises(InvalidInputError, match="exists"):
        restore(tmp_path / "snapshot", root)


def test_a_full_disk_is_named_and_the_index_goes_on(index: SpannIndex, root: Path, tmp_path: Path) -> None:
    big = [f"big{i}" for i in range(2000)]
    with no_file_over(30_000):
        with pytest.raises(StorageError, match=r"log-000001\.wal cannot grow"):
            index.add(big, drawn(2000))
        assert len(index) == 50
        for i in range(0, 600, 30):
            index.add(big[i : i + 30], drawn(30, seed=i))
            index.merge()
    assert len(index) == 650
    index.add(big[600:], drawn(1400))
    with no_file_over(20_000):
        with pytest.raises(StorageError, match=r"cannot be built: .*; make room and merge again"):
            index.merge(full=True)
        with pytest.raises(StorageError, match="cannot be copied"):
            index.snapshot(tmp_path / "snapshot")
    assert not (tmp_path / "snapshot").exists()
    assert len(index) == 2050
    index.merge(full=True)
    assert (len(index), len(index.segments)) == (2050, 1)
    index.close()
    assert check(root) == []


def test_searches_beside_writes_and_merges_only_see_what_was_alive(tmp_path: Path) -> None:
    """Readers while one thread writes: each hit has the score of a version that was alive during the search."""
    race = Race(tmp_path / "index", rows=300, seed=1)
    race.run(seconds=3.0, readers=2)
    assert race.wrong == []
    assert race.searches > 50
    assert race.writes > 50
    assert check(tmp_path / "index") == []


def test_filters_see_the_metadata_of_the_newest_version(index: SpannIndex) -> None:
    old = parse_filter({"field": "n", "lt": 10})
    assert {name for name, _ in index.search(drawn(1), 50, condition=old)[0]} == set(names(10))
    index.replace(["d3"], drawn(1), [{"n": 99}])
    index.replace(["d20"], drawn(1), [{"n": 1}])
    index.replace(["d4"], drawn(1))
    expected = {*names(10), "d20"} - {"d3", "d4"}
    for _ in range(2):
        assert {name for name, _ in index.search(drawn(1), 50, condition=old)[0]} == expected
        index.merge(full=True)

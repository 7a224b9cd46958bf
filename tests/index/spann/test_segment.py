from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.spann import codecs, heads
from index.spann.codecs import ROTATION_FILE
from index.spann.kernels import faiss
from index.spann.parameters import Codec, Effort, Metric, SpannParameters
from index.spann.segment import EXACT_ALLOWED, Segment
from index.spann.segment_build import BLOCK_ROWS, SEGMENT_FILE
from index.spann.vectors import ArrayStream
from rankers.errors import CorruptIndexError, InvalidInputError
from tests.index.spann.clouds import StoppingStream, cloud, recall, stop_at, true_scores

EVERYTHING = Effort(lists=10**9, rerank=10**9)
COUNT = 3000


def built(
    folder: Path,
    vectors: npt.NDArray[np.float32],
    *,
    metric: Metric = "ip",
    codec: Codec = "pq",
    head_ratio: float = 0.04,
    prefetch: bool = False,
) -> Segment:
    parameters = SpannParameters(metric=metric, codec=codec, head_ratio=head_ratio)
    Segment.build(folder, ArrayStream(vectors), parameters=parameters)
    return Segment.open(folder, verify=True, prefetch=prefetch)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    return built(tmp_path_factory.mktemp("segment"), cloud(COUNT))


@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
@pytest.mark.parametrize("codec", ["pq", "sq8", "float32", "rabitq"])
@pytest.mark.parametrize("dimensions", [16, 7])
def test_everything_scanned_is_brute_force(metric: Metric, codec: Codec, dimensions: int, tmp_path: Path) -> None:
    vectors, queries = cloud(COUNT, dimensions), cloud(20, dimensions, seed=1)
    segment = built(tmp_path, vectors, metric=metric, codec=codec)
    rows, scores = segment.search(queries, 10, effort=EVERYTHING)
    truth = true_scores(vectors, queries, metric)
    np.testing.assert_allclose(scores, -np.sort(-truth, axis=1)[:, :10], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores, np.take_along_axis(truth, rows, axis=1), rtol=1e-4, atol=1e-4)
    assert all(len(set(row)) == 10 for row in rows.tolist())
    _, few = segment.search(queries, 10, effort=Effort(lists=24, pruning=2.0))
    assert recall(few, truth) > 0.8


def test_a_batch_is_its_queries_one_by_one(segment: Segment) -> None:
    queries = cloud(150, seed=2)
    for effort in (Effort(lists=8, rerank=20), Effort(lists=16, pruning=1.1), Effort(lists=16, pruning=2, anchor=1)):
        rows, scores = segment.search(queries, 5, effort=effort)
        singles = [segment.search(queries[i : i + 1], 5, effort=effort) for i in range(len(queries))]
        np.testing.assert_array_equal(rows, np.concatenate([single[0] for single in singles]))
        np.testing.assert_array_equal(scores, np.concatenate([single[1] for single in singles]))


def test_threads_give_the_same(segment: Segment) -> None:
    queries = cloud(200, seed=3)
    expected, _ = segment.search(queries, 10)
    before = faiss.omp_get_max_threads()
    np.testing.assert_array_equal(segment.search(queries, 10, threads=2)[0], expected)
    assert faiss.omp_get_max_threads() == before
    with ThreadPoolExecutor(4) as pool:
        for rows, _ in pool.map(lambda _: segment.search(queries, 10), range(8)):
            np.testing.assert_array_equal(rows, expected)


def test_prefetch_gives_the_same(segment: Segment, tmp_path: Path) -> None:
    queries = cloud(5, seed=4)
    ahead = Segment.open(segment.folder, prefetch=True)
    np.testing.assert_array_equal(ahead.search(queries, 10)[0], segment.search(queries, 10)[0])


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_only_allowed_rows_are_found(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.spann.segment.EXACT_ALLOWED", 400)
    vectors, queries = cloud(COUNT), cloud(20, seed=5)
    segment = built(tmp_path, vectors)
    mask = np.random.default_rng(0).random(COUNT) < share
    rows, scores = segment.search(queries, 10, allowed=np.packbits(mask, bitorder="little"))
    assert mask[rows[rows >= 0]].all()
    truth = true_scores(vectors, queries, "ip")
    truth[:, ~mask] = -np.inf
    assert recall(scores, truth) > 0.95


def test_few_allowed_rows_are_compared_exactly(segment: Segment) -> None:
    assert EXACT_ALLOWED > COUNT
    mask = np.zeros(COUNT, np.bool_)
    mask[[5, 77, 2999]] = True
    rows, scores = segment.search(cloud(3, seed=6), 5, allowed=np.packbits(mask, bitorder="little"))
    assert {5, 77, 2999} == set(rows[0].tolist()) - {-1}
    assert (rows[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()
    none, _ = segment.search(cloud(3, seed=6), 5, allowed=np.zeros(-(-COUNT // 8), np.uint8))
    assert (none == -1).all()


@pytest.mark.parametrize("count", [0, 1, 7, 2048, 2049])
def test_small_segments_and_k_over_n(count: int, tmp_path: Path) -> None:
    vectors, queries = cloud(count, 5), cloud(3, 5, seed=1)
    segment = built(tmp_path, vectors)
    rows, scores = segment.search(queries, count + 3, effort=EVERYTHING)
    assert (rows[:, count:] == -1).all()
    assert np.isneginf(scores[:, count:]).all()
    assert all(sorted(row) == list(range(count)) for row in rows[:, :count].tolist())
    assert len(segment) == count


@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
@pytest.mark.parametrize("codec", ["pq", "rabitq"])
def test_all_vectors_equal(metric: Metric, codec: Codec, tmp_path: Path) -> None:
    segment = built(tmp_path, np.ones((COUNT, 4), np.float32), metric=metric, codec=codec)
    rows, scores = segment.search(np.ones((2, 4), np.float32), 10)
    assert len(set(rows[0].tolist())) == 10
    assert (scores == scores[0, 0]).all()


def test_no_duplicate_is_lost(tmp_path: Path) -> None:
    vectors = np.concatenate((cloud(1500, 6), np.tile(cloud(1, 6, seed=9), (1500, 1))))
    rows, _ = built(tmp_path, vectors, head_ratio=0.1).search(cloud(1, 6), 3000, effort=EVERYTHING)
    assert sorted(rows[0].tolist()) == list(range(3000))


def test_no_queries(segment: Segment) -> None:
    rows, scores = segment.search(np.empty((0, 16), np.float32), 4)
    assert rows.shape == scores.shape == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float, segment: Segment, tmp_path: Path) -> None:
    vectors = cloud(50)
    vectors[17, 3] = value
    with pytest.raises(InvalidInputError, match="vector 17 "):
        Segment.build(tmp_path / "a", ArrayStream(vectors), parameters=SpannParameters())
    with pytest.raises(InvalidInputError, match="query 17 "):
        segment.search(vectors, 3)


def test_zero_vectors_have_no_cosine(tmp_path: Path) -> None:
    vectors = cloud(50)
    vectors[20] = 0
    with pytest.raises(InvalidInputError, match="vector 20 is zero"):
        Segment.build(tmp_path, ArrayStream(vectors), parameters=SpannParameters(metric="cosine"))


def test_large_finite_numbers_are_not_mistaken_for_infinite(tmp_path: Path) -> None:
    vectors = np.full((3, 4), 3e38, np.float32)
    Segment.build(tmp_path, ArrayStream(vectors), parameters=SpannParameters())
    assert len(Segment.open(tmp_path)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"k": 0}, "k must"), ({"k": 5, "recall": 1.5}, "recall"), ({"k": 5, "allowed": np.zeros(3, np.uint8)}, "375")],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str, segment: Segment) -> None:
    with pytest.raises(InvalidInputError, match=message):
        segment.search(cloud(1), **arguments)


def test_wrong_dimensions_are_named(segment: Segment) -> None:
    with pytest.raises(InvalidInputError, match=r"16 dimensions.*\(2, 5\)"):
        segment.search(np.ones((2, 5), np.float32), 3)


@pytest.mark.parametrize("phase", ["heads", "closure", "postings"])
def test_a_build_goes_on_after_the_last_finished_phase(phase: str, tmp_path: Path) -> None:
    vectors = cloud(COUNT)
    with pytest.raises(KeyboardInterrupt):
        Segment.build(tmp_path / "a", ArrayStream(vectors), parameters=SpannParameters(), on_progress=stop_at(phase))
    with pytest.raises(CorruptIndexError, match="never finished"):
        Segment.open(tmp_path / "a")
    stream = StoppingStream(vectors)
    Segment.build(tmp_path / "a", stream, parameters=SpannParameters())
    assert stream.given <= 1
    Segment.build(tmp_path / "b", ArrayStream(vectors), parameters=SpannParameters())
    names = [json.loads((tmp_path / name / SEGMENT_FILE).read_text()) for name in ("a", "b")]
    assert names[0] == names[1]


def test_a_build_goes_on_within_the_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.spann.segment_build.CHECKPOINT_BYTES", 1)
    vectors = cloud(3 * BLOCK_ROWS + 5, 2)
    parameters = SpannParameters(head_ratio=0.002)
    with pytest.raises(KeyboardInterrupt):
        Segment.build(tmp_path, StoppingStream(vectors, 2 * BLOCK_ROWS), parameters=parameters)
    assert (tmp_path / "vectors.f32.part").stat().st_size == 2 * BLOCK_ROWS * 8
    Segment.build(tmp_path, ArrayStream(vectors), parameters=parameters)
    np.testing.assert_array_equal(Segment.open(tmp_path).vectors(np.arange(len(vectors))), vectors)


def test_leftovers_of_another_build_are_not_used(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Segment.build(
            tmp_path, ArrayStream(cloud(COUNT, seed=8)), parameters=SpannParameters(), on_progress=stop_at("closure")
        )
    vectors = cloud(COUNT, seed=9)
    segment = built(tmp_path, vectors)
    np.testing.assert_array_equal(next(iter(segment.stream().blocks(COUNT))), vectors)


def test_a_finished_segment_is_never_built_over(segment: Segment) -> None:
    with pytest.raises(InvalidInputError, match="finished segment"):
        Segment.build(segment.folder, ArrayStream(cloud(5)), parameters=SpannParameters())


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    built(tmp_path, cloud(COUNT)).close()
    for name in json.loads((tmp_path / SEGMENT_FILE).read_text())["files"]:
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(CorruptIndexError, match=rf"{name} has .* bytes instead"):
            Segment.open(tmp_path)
        path.write_bytes(content[:100] + bytes([content[100] ^ 4]) + content[101:])
        with pytest.raises(CorruptIndexError, match=rf"{name} has changed"):
            Segment.open(tmp_path, verify=True)
        path.unlink()
        with pytest.raises(CorruptIndexError, match=rf"{name} is missing"):
            Segment.open(tmp_path)
        path.write_bytes(content)
    Segment.open(tmp_path, verify=True)
    (tmp_path / SEGMENT_FILE).write_text("{")
    with pytest.raises(CorruptIndexError, match=SEGMENT_FILE):
        Segment.open(tmp_path)


def test_few_heads_are_coded_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    heads.HeadIndex.build(cloud(530), "l2")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_a_graph_over_many_heads(metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "SCANNED_HEADS", 600)
    vectors, queries = cloud(COUNT), cloud(20, seed=7)
    segment = built(tmp_path, vectors, metric=metric, head_ratio=0.3)
    _, scores = segment.search(queries, 10, effort=Effort(lists=48))
    assert recall(scores, true_scores(vectors, queries, metric)) > 0.9


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_one_bit_codes_do_not_depend_on_the_axes(
    metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors whose first numbers are the greatest: without a rotation the bits of the others say nothing."""
    random, scales = np.random.default_rng(0), 0.8 ** np.arange(64)
    vectors, queries = ((random.normal(size=(count, 64)) * scales).astype(np.float32) for count in (4000, 60))
    truth = true_scores(vectors, queries, metric)
    found = []
    for name in ("rotated", "plain"):
        segment = built(tmp_path / name, vectors, metric=metric, codec="rabitq", head_ratio=0.005)
        assert (segment.folder / ROTATION_FILE).exists() == (name == "rotated")
        _, scores = segment.search(queries, 10, effort=Effort(lists=64, rerank=40))
        found.append(recall(scores, truth))
        monkeypatch.setattr(codecs, "prepare_rotation", lambda *_, **__: None)
    assert found[0] > 0.9
    assert found[1] < found[0] - 0.1


def test_memory_decides_the_heads() -> None:
    large, small = SpannParameters(max_memory_mb=100), SpannParameters(max_memory_mb=20)
    assert large.heads(1_000_000, 96) == 160_000 or large.heads(1_000_000, 96) > small.heads(1_000_000, 96)
    assert small.heads(1_000_000, 96) * (4 * 96) < 20e6
    with pytest.raises(InvalidInputError, match="at least"):
        SpannParameters(max_memory_mb=0.1).heads(1_000_000, 96)


@pytest.mark.parametrize(
    "wrong", [{"metric": "dot"}, {"codec": "zip"}, {"head_ratio": 0.0}, {"replicas": 0}, {"posting_limit": 0}]
)
def test_wrong_parameters_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        SpannParameters(**wrong)  # type: ignore[arg-type]

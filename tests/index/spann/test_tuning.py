from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.spann import tuning
from index.spann.curve import CURVE_FILE, Curve, Point, read_curve
from index.spann.parameters import Effort, SpannParameters
from index.spann.segment import Segment
from index.spann.tuning import fit_curve, queries_between, true_scores, unbeaten
from index.spann.tuning_plot import plot_curve
from index.spann.vectors import ArrayStream
from rankers.errors import CorruptIndexError, InvalidInputError
from tests.index.spann import clouds
from tests.index.spann.clouds import cloud, recall


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tuning, "LISTS", (1, 4, 16, 64))
    monkeypatch.setattr(tuning, "PRUNING", (1.5, np.inf))
    monkeypatch.setattr(tuning, "RERANK", (20, 80))
    Segment.build(tmp_path, ArrayStream(cloud(3000)), parameters=SpannParameters(metric="cosine"))
    return tmp_path


def test_a_search_takes_recall_instead_of_internals(folder: Path) -> None:
    fit_curve(Segment.open(folder), cloud(60, seed=1))
    segment = Segment.open(folder)
    queries = cloud(60, seed=2)
    truth = clouds.true_scores(cloud(3000), queries, "cosine")
    reached = [recall(segment.search(queries, 10, recall=wanted)[1], truth) for wanted in (0.3, 0.9, 0.99)]
    assert reached[1] > 0.85
    assert reached[2] > 0.95
    assert reached[0] <= reached[2]


def test_the_curve_is_kept_and_rises(folder: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    curve = fit_curve(Segment.open(folder), cloud(40, seed=1), on_progress=lambda *step: steps.append(step))
    assert read_curve(folder) == curve
    assert list(curve.points) == sorted(curve.points, key=lambda point: point.recall)
    assert list(curve.points) == sorted(curve.points, key=lambda point: point.latency_us)
    assert curve.points[-1].recall > 0.97
    assert all(point.read_bytes > 0 for point in curve.points)
    assert steps[-1][1] == steps[-1][2]
    plot_curve(curve, folder / "curve.png")
    assert (folder / "curve.png").stat().st_size > 1000


def test_a_broken_curve_is_named(folder: Path) -> None:
    assert read_curve(folder) is None
    (folder / CURVE_FILE).write_text('{"k": 10}')
    with pytest.raises(CorruptIndexError, match=CURVE_FILE):
        Segment.open(folder)


def test_true_scores_are_brute_force(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "BLOCK_ROWS", 700)
    segment = Segment.open(folder)
    queries = segment.prepare(cloud(5, seed=3))
    expected = -np.sort(-clouds.true_scores(cloud(3000), queries, "cosine"), axis=1)[:, :4]
    np.testing.assert_allclose(true_scores(segment, queries, 4), expected, rtol=1e-5)


def test_queries_between_vectors_are_new(folder: Path) -> None:
    segment = Segment.open(folder)
    queries = queries_between(segment, 50)
    assert queries.shape == (50, 16)
    assert (segment.search(queries, 1)[1] < 1 - 1e-6).mean() > 0.9


def test_small_segments_can_be_tuned(tmp_path: Path) -> None:
    Segment.build(tmp_path, ArrayStream(cloud(30)), parameters=SpannParameters(metric="l2"))
    curve = fit_curve(Segment.open(tmp_path), cloud(5, seed=1))
    assert curve.points[-1].recall == 1


def test_tuning_needs_queries_and_vectors(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least one query"):
        fit_curve(Segment.open(folder), np.empty((0, 16), np.float32))


def test_beaten_points_are_left_out_and_the_fastest_that_reaches_is_taken() -> None:
    def point(recall: float, latency: float) -> Point:
        return Point(recall, Effort(lists=int(latency)), latency, 1.0)

    points = list(unbeaten([point(0.9, 50), point(0.95, 40), point(0.5, 10), point(0.99, 90), point(0.99, 95)]))
    assert [(each.recall, each.latency_us) for each in points] == [(0.5, 10), (0.95, 40), (0.99, 90)]
    curve = Curve(10, 5, tuple(points))
    assert curve.effort(0.9).lists == 40
    assert curve.effort(None).lists == 40
    assert curve.effort(0.999).lists == 90

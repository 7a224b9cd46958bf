"""Damage is found and named, and mended where that can be."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from index.spann.building import build_index, restore
from index.spann.check import check
from index.spann.curve import Curve, Point, write_curve
from index.spann.live import SpannIndex
from index.spann.manifest import read_current
from index.spann.parameters import Effort, SpannParameters
from index.spann.tuning import fit_curve
from index.spann.vectors import ArrayStream
from rankers.errors import CorruptIndexError, NotReadyError, OverloadedError
from tests.index.documents import unit_vectors

ROWS, D = 2600, 16
"""Enough for a segment to have heads and postings."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with a large segment that has dead rows, a small one, and a log."""
    root = tmp_path_factory.mktemp("check") / "index"
    vectors = unit_vectors(ROWS + 200, D, clusters=20, seed=0)
    rows = [(f"d{i}", {"n": i % 10}) for i in range(ROWS)]
    build_index(root, rows, ArrayStream(vectors[:ROWS]))
    with SpannIndex.open(root, merge_rows=None) as index:
        index.add([f"x{i}" for i in range(100)], vectors[ROWS : ROWS + 100])
        index.delete(["d1", "d2"])
        index.merge()
        index.add([f"y{i}" for i in range(100)], vectors[ROWS + 100 :], [{"n": 3}] * 100)
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "index")
    return tmp_path / "index"


def all_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name != "LOCK")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 16
    path.write_bytes(content)


def search(root: Path) -> list[list[tuple[str, float]]]:
    with SpannIndex.open(root, read_only=True) as index:
        return index.search(unit_vectors(5, D, clusters=20, seed=4), 10)


def test_a_healthy_index_has_no_findings(root: Path) -> None:
    assert len(read_current(root).segments) == 2
    assert check(root) == []
    assert check(root, repair=True) == []


def test_a_flipped_bit_is_found_in_every_file(root: Path) -> None:
    choose = random.Random(0)
    for path in all_files(root):
        whole = path.read_bytes()
        for at in {0, len(whole) - 2, *(choose.randrange(len(whole) - 1) for _ in range(4))}:
            flip(path, at)
            wrong = [finding for finding in check(root) if not finding.harmless]
            assert wrong, f"{path} at {at}"
            assert any(path.name in f"{finding.path} {finding.problem}" for finding in wrong), wrong
            path.write_bytes(whole)
    assert check(root) == []


def test_a_missing_or_shortened_file_is_named(root: Path) -> None:
    log = last_log(root)
    for path in all_files(root):
        whole = path.read_bytes()
        for content in (None, whole[: len(whole) // 2]):
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            wrong = check(root)
            assert any(path.name in f"{finding.path} {finding.problem}" for finding in wrong), (path, wrong)
            if path != log or content is None:  # half a log looks as one that was cut short
                with pytest.raises((CorruptIndexError, NotReadyError), match=path.name.replace(".", r"\.")):
                    SpannIndex.open(root, read_only=True, verify=True)
            path.write_bytes(whole)
    assert check(root) == []


def last_log(root: Path) -> Path:
    return root / read_current(root).logs[-1].name


def test_what_follows_from_other_files_is_made_again(root: Path) -> None:
    before = search(root)
    first = root / read_current(root).segments[0].folder
    (first / "columns.bin").unlink()
    flip(first / "lookup.bin", 100)
    postings = next(path for path in (first / "vectors").iterdir() if path.name.startswith("postings"))
    flip(postings, postings.stat().st_size // 2)
    wrong = check(root)
    assert len(wrong) == 3
    assert not any(finding.repaired for finding in wrong)
    assert all(finding.repaired for finding in check(root, repair=True) if not finding.harmless)
    assert check(root) == []
    after = search(root)
    for one, other in zip(before, after, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]


def test_what_follows_from_nothing_is_not_mended(root: Path) -> None:
    path = root / read_current(root).segments[0].folder / "rows.bin"
    flip(path, path.stat().st_size // 2)
    (finding,) = check(root, repair=True)
    assert (finding.path, finding.repaired) == (path, False)
    assert "restore a snapshot" in finding.remedy


def test_a_curve_older_than_the_vectors_is_told_of(root: Path) -> None:
    queries = unit_vectors(20, D, clusters=20, seed=4)
    with SpannIndex.open(root, merge_rows=None) as index:
        fit_curve(index.segments[0].segment, queries)
    assert check(root) == []
    with SpannIndex.open(root, merge_rows=None) as index:
        index.merge(full=True)
        assert index.segments[0].segment.curve is not None
    (finding,) = check(root)
    assert finding.harmless
    assert finding.problem.startswith("the curve of these 2,798 vectors was measured on a segment of 2,600 vectors")
    assert finding.remedy == "run: shortlist index tune"
    with SpannIndex.open(root, merge_rows=None) as index:
        fit_curve(index.segments[0].segment, queries)
    assert check(root) == []


def test_many_vectors_without_a_curve_beside_tuned_ones_are_told_of(tmp_path: Path) -> None:
    vectors = unit_vectors(11_200, 8, clusters=20, seed=6)
    ids = [f"d{i}" for i in range(len(vectors))]
    parameters = SpannParameters(head_ratio=0.01)
    build_index(tmp_path / "i", ((name, {}) for name in ids[:9000]), ArrayStream(vectors[:9000]), parameters=parameters)
    with SpannIndex.open(tmp_path / "i", merge_rows=None) as index:
        index.add(ids[9000:], vectors[9000:])
        index.merge()
        assert [len(segment) for segment in index.segments] == [9000, 2200]
        assert check(tmp_path / "i") == []
        point = Point(0.9, Effort(), latency_us=1.0, read_bytes=1.0)
        write_curve(index.segments[0].segment.folder, Curve(10, 1, (point,), 9000))
    (finding,) = check(tmp_path / "i")
    assert finding.harmless
    assert finding.problem == "these 2,200 vectors have no curve, and a wanted recall has no effect on them"


def test_leftovers_are_removed(root: Path) -> None:
    (root / "segments" / "000099").mkdir()
    (root / "segments" / "000099" / "vectors.f32.part").write_bytes(b"half")
    (root / "log-000099.wal").write_bytes(b"")
    (root / "MANIFEST-000099.json").write_text("{")
    segment = root / read_current(root).segments[0].folder
    (segment / "live-000099.bin").write_bytes(b"")
    assert {finding.path.name for finding in check(root) if finding.harmless} == {
        "000099",
        "log-000099.wal",
        "MANIFEST-000099.json",
        "live-000099.bin",
    }
    assert all(finding.repaired for finding in check(root, repair=True))
    assert check(root) == []


def test_what_a_writer_is_at_is_no_leftover(root: Path) -> None:
    with SpannIndex.open(root) as index:
        (root / "segments" / "000099").mkdir()
        assert check(root) == []
        index.merge(full=True)
        assert check(root) == []
        (root / index.segments[0].folder / "columns.bin").unlink()
        assert [finding.path.name for finding in check(root)] == ["columns.bin"]
    assert {finding.path.name for finding in check(root)} == {"columns.bin", "000099"}


def test_a_torn_log_is_cut(root: Path) -> None:
    before = search(root)
    log = last_log(root)
    whole = log.read_bytes()
    log.write_bytes(whole + whole[8:60])
    (finding,) = check(root)
    assert finding.harmless
    assert f"at byte {len(whole)}, was cut short" in finding.problem
    assert search(root) == before
    assert check(root, repair=True)[0].repaired
    assert log.read_bytes() == whole


def test_current_is_made_again_where_there_is_no_doubt(root: Path) -> None:
    name = (root / "CURRENT").read_text()
    (root / "CURRENT").unlink()
    (finding,) = check(root)
    assert (finding.path.name, finding.harmless) == ("CURRENT", False)
    (finding,) = check(root, repair=True)
    assert finding.repaired
    assert (root / "CURRENT").read_text() == name
    assert check(root) == []


def test_only_one_who_may_write_mends(root: Path, tmp_path: Path) -> None:
    with SpannIndex.open(root), pytest.raises(OverloadedError, match="open for writing elsewhere"):
        check(root, repair=True)
    with pytest.raises(NotReadyError, match="there is no index"):
        check(tmp_path / "nowhere")


def test_a_damaged_snapshot_is_not_restored(root: Path, tmp_path: Path) -> None:
    with SpannIndex.open(root) as index:
        index.snapshot(tmp_path / "snapshot")
    raw = next((tmp_path / "snapshot").rglob("vectors.f32"))
    raw_bytes = raw.read_bytes()
    raw.unlink()
    raw.write_bytes(raw_bytes[:-4] + np.float32(7).tobytes())
    with pytest.raises(CorruptIndexError, match=r"vectors\.f32"):
        restore(tmp_path / "snapshot", tmp_path / "again")
    assert not (tmp_path / "again").exists()

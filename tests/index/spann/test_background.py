"""Merges in the background, and writers who wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index.spann.building import build_index
from index.spann.check import check
from index.spann.live import SpannIndex
from index.spann.merging import build_segment
from index.spann.vectors import ArrayStream
from rankers.errors import NotReadyError, OverloadedError, StorageError
from tests.index.spann.race import drawn, names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "index"
    build_index(root, [(name, {}) for name in names(50)], ArrayStream(drawn(50)))
    return root


def test_the_delta_buffer_is_merged_in_the_background(root: Path) -> None:
    with SpannIndex.open(root, merge_rows=20) as index:
        for i in range(100):
            index.replace([f"x{i}"], drawn(1, seed=i))
        index.replace(["y"], drawn(1))
        ends_at = time.monotonic() + 20
        while index.delta_rows >= 20 and time.monotonic() < ends_at:
            time.sleep(0.01)
            index.replace(["y"], drawn(1))
        assert len(index) == 151
        assert index.delta_rows < 50
        assert index.merge_error is None
    assert check(root) == []


class SlowMerges:
    """Builds the segments of merges only once it may, or is told to stop; raises `error` if there is one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go_on = threading.Event()
        self.error: Exception | None = None
        self._build = build_segment
        monkeypatch.setattr("index.spann.live.build_segment", self)

    def __call__(self, *arguments: Any) -> None:
        while not self.may_go_on.wait(0.01):
            arguments[-1]()  # raises when the index is closed
        if self.error is not None:
            raise self.error
        self._build(*arguments)


def add_one_by_one(index: SpannIndex, count: int) -> None:
    for i in range(count):
        index.add([f"x{i}"], drawn(1, seed=i))


def test_writes_that_outrun_merges_are_refused_in_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merges = SlowMerges(monkeypatch)
    with SpannIndex.open(root, merge_rows=10, write_timeout_s=0.1) as index:
        add_one_by_one(index, 40)
        with pytest.raises(OverloadedError, match=r"has 40 rows of at most 40, and no merge made room within 0.1 s"):
            index.add(["y"], drawn(1))
        assert (len(index), index.delta_rows) == (90, 40)
        assert index.delete(["x3"]) == 1  # which takes no room
        merges.may_go_on.set()
    with SpannIndex.open(root, merge_rows=10) as index:
        index.add(["y"], drawn(1))  # which waits until there is room
        index.settle()
        assert (len(index), index.delta_rows) == (90, 1)
        index.add([f"z{i}" for i in range(200)], drawn(200))  # more than fits, once there is nothing else
        assert len(index) == 290
    assert check(root) == []


def test_the_delta_buffer_stays_bounded_whatever_writers_do(root: Path) -> None:
    most: list[int] = []

    def write(index: SpannIndex, writer: int) -> None:
        for i in range(60):
            index.replace([f"w{writer}-{i}-{j}" for j in range(3)], drawn(3, seed=i))
            most.append(index.delta_rows)

    with SpannIndex.open(root, merge_rows=15) as index:
        threads = [threading.Thread(target=write, args=(index, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(index), index.merge_error) == (50 + 4 * 60 * 3, None)
    assert len(most) == 4 * 60
    assert max(most) <= 60
    assert check(root) == []


def test_writes_say_why_merges_make_no_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merges = SlowMerges(monkeypatch)
    merges.error = OSError(28, "No space left on device")
    merges.may_go_on.set()
    with SpannIndex.open(root, merge_rows=10) as index:
        with pytest.raises(StorageError, match=r"is full and cannot be merged: .*No space left"):
            add_one_by_one(index, 100)
        assert index.delta_rows == 40
        failed = index.merge_error
        assert isinstance(failed, StorageError)
        merges.error = None
        index.add(["y"], drawn(1))
        assert index.merge_error is None
        assert len(index) == 91


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "MemoryError"), (KeyError("d7"), "KeyError: 'd7'"), (OSError(5, "I/O"), "I/O")]
)
def test_a_merge_that_dies_tells_writers_why(
    error: Exception, said: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merges = SlowMerges(monkeypatch)
    merges.error = error
    merges.may_go_on.set()
    with SpannIndex.open(root, merge_rows=10, write_timeout_s=5.0) as index:
        for _ in range(2):  # the next one is told as well
            with pytest.raises(StorageError, match=rf"is full and cannot be merged: .*{said}") as refused:
                add_one_by_one(index, 100)
        assert refused.value.__cause__ is index.merge_error is not None
        held = set(index.ids())
        assert len(held) == 90
    with SpannIndex.open(root, merge_rows=10) as index:
        assert set(index.ids()) == held
        merges.error = None
        index.add(["y"], drawn(1))
        assert (len(index), index.merge_error) == (91, None)
    assert check(root) == []


def _folder_for_the_log(root: Path) -> Path:
    return root / "log-000002.wal"


def _copy_of_a_segment(root: Path) -> Path:
    return root / "segments" / "000001 (copy)"


@pytest.mark.parametrize("place", [_folder_for_the_log, _copy_of_a_segment])
def test_merges_work_again_once_what_stops_them_is_gone(place: Callable[[Path], Path], root: Path) -> None:
    """Folders that nobody of ours makes where a merge writes."""
    with SpannIndex.open(root, merge_rows=10, write_timeout_s=5.0) as index:
        place(root).mkdir()
        with pytest.raises(StorageError, match=r"is full and cannot be merged: .*(log-000002|000001 \(copy\))"):
            add_one_by_one(index, 100)
        held = set(index.ids())
        assert len(held) == 90
        place(root).rmdir()
        index.add(["y"], drawn(1))
        index.settle()
        assert index.merge_error is None
        assert set(index.ids()) == {*held, "y"}
    assert check(root) == []


def test_a_write_counts_where_no_thread_can_merge(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with SpannIndex.open(root, merge_rows=10) as index:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(StorageError, match=r"is full and cannot be merged: .*can't start new thread"):
                add_one_by_one(index, 100)
        assert len(index) == 90
        index.add(["y"], drawn(1))
        index.settle()
        assert (len(index), index.merge_error) == (91, None)


def test_a_write_that_waits_ends_when_the_index_is_closed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SlowMerges(monkeypatch)
    said: list[str] = []

    def write(index: SpannIndex) -> None:
        try:
            index.add([f"y{i}" for i in range(5)], drawn(5))
        except NotReadyError as error:
            said.append(str(error))

    with SpannIndex.open(root, merge_rows=10) as index:
        index.add([f"x{i}" for i in range(38)], drawn(38))
        writer = threading.Thread(target=write, args=(index,))
        writer.start()
    writer.join()
    assert len(said) == 1
    assert "has been closed" in said[0]

"""The write-ahead log: nothing acknowledged is lost, nothing damaged is believed."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.spann.wal import LogWriter, read_log
from rankers.errors import CorruptIndexError, StorageError

BODIES = [b"first", b"", b"a longer third one", b"last"]


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let writes fail beyond a size, as they do when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    writer = LogWriter(path, number=10)
    assert [writer.append(body) for body in BODIES] == [11, 12, 13, 14]
    writer.close()
    return path


def bodies(path: Path, *, end: int | None = None) -> list[bytes]:
    return [record.body for record in read_log(path, after=10, end=end).records]


def test_records_come_back(path: Path) -> None:
    content = read_log(path, after=10)
    assert [record.number for record in content.records] == [11, 12, 13, 14]
    assert bodies(path) == BODIES
    assert not content.is_torn
    assert bodies(path, end=path.stat().st_size) == BODIES


def test_a_log_is_written_on(path: Path) -> None:
    writer = LogWriter(path, number=14, end=path.stat().st_size)
    writer.append(b"more")
    writer.close()
    assert bodies(path) == [*BODIES, b"more"]


def test_a_record_that_was_cut_short_is_dropped(path: Path) -> None:
    whole = path.read_bytes()
    start = read_log(path, after=10).records[-1].start
    for size in range(start, len(whole)):
        path.write_bytes(whole[:size])
        assert bodies(path) == BODIES[:-1]
        content = read_log(path, after=10)
        assert (content.end, content.is_torn) == (start, size > start)
        if size > start:
            with pytest.raises(CorruptIndexError, match=f"log has {size} bytes instead of {len(whole)}"):
                read_log(path, after=10, end=len(whole))
    path.write_bytes(whole[: start + 5])
    writer = LogWriter(path, number=13, end=start)
    writer.append(b"other")
    writer.close()
    assert bodies(path) == [*BODIES[:-1], b"other"]


def test_space_that_was_never_written_is_dropped(path: Path) -> None:
    """Where power fails, a file may have grown and have zeros for content."""
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(100))
    assert bodies(path) == BODIES
    start = read_log(path, after=10).records[-1].start
    path.write_bytes(whole[: start + 22] + bytes(len(whole) - start - 22))
    assert bodies(path) == BODIES[:-1]


@settings(max_examples=300)
@given(data=st.data())
def test_a_flipped_bit_is_found_and_its_place_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("wal") / "log"
    writer = LogWriter(path, number=10)
    for body in BODIES:
        writer.append(body)
    writer.close()
    whole = bytearray(path.read_bytes())
    records = read_log(path, after=10).records
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    if any(at == record.end - 1 for record in records) and whole[at] == 0:
        assert bodies(path) == BODIES  # only the mark was lost
        return
    with pytest.raises(CorruptIndexError, match=r"log is damaged at byte") as caught:
        read_log(path, after=10)
    start = max((record.start for record in records if record.start <= at), default=0)
    assert f"byte {start}:" in str(caught.value)


def test_records_out_of_order_are_damage(path: Path) -> None:
    with pytest.raises(CorruptIndexError, match="record 11 follows record 3"):
        read_log(path, after=3)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptIndexError, match="log is missing"):
        read_log(tmp_path / "log", after=0)


def test_a_full_disk_is_named_and_leaves_the_log_whole(path: Path) -> None:
    size = path.stat().st_size
    writer = LogWriter(path, number=14, end=size)
    with no_file_over(size + 40), pytest.raises(StorageError, match=r"log cannot grow by 1027 bytes"):
        writer.append(bytes(1002))
    assert path.stat().st_size == size
    assert writer.append(b"fits") == 15
    writer.close()
    assert bodies(path) == [*BODIES, b"fits"]


def test_a_log_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with no_file_over(2), pytest.raises(StorageError, match="log cannot be made"):
        LogWriter(tmp_path / "log", number=0)
    assert not list(tmp_path.iterdir())

"""A click log goes into files and comes back."""

import itertools
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.clicklog.interchange import Format, Moved, export_log, import_log
from index.clicklog.store import Records, SqlClickLog, open_click_log
from rankers.errors import InvalidInputError, NotFoundError
from rankers.events import Event, Impression
from tests.index.clicklog.records import CLICK, DWELL, SHOWN, stored_events, stored_impressions

FORMATS = get_args(Format)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
# Offsets and no zones: a moment in the hour that a change of clocks repeats or leaves out equals nothing.
zones = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones, min_value=datetime(1970, 1, 3), max_value=datetime(2199, 1, 1))
impressions = st.builds(
    Impression,
    id=ids,
    query_text=text,
    document_ids=st.lists(ids, unique=True, max_size=3).map(tuple),
    pipeline=text,
    model_version=text,
    shown_at=moments,
    features=st.dictionaries(ids, st.dictionaries(text, numbers, max_size=2), max_size=2),
    feature_set=text,
    session_key=st.none() | ids,
    layout=st.sampled_from(["list", "grid:3"]),
)
events = st.builds(
    Event,
    id=ids,
    impression_id=ids,
    document_id=ids,
    kind=st.sampled_from(["click", "dwell", "conversion"]),
    position=st.none() | st.integers(1, 2**31 - 1),
    happened_at=moments,
    value=numbers,
)


@pytest.fixture
def new_log(tmp_path: Path) -> Callable[[], SqlClickLog]:
    made = itertools.count()
    return lambda: open_click_log(f"sqlite:///{tmp_path}/{next(made)}.sqlite")


@pytest.mark.parametrize("form", FORMATS)
def test_a_log_comes_back_from_files(log: SqlClickLog, tmp_path: Path, form: Format) -> None:
    log.add([Records([SHOWN, replace(SHOWN, id="i2", user_key=None, arms=())], [CLICK, replace(DWELL, position=None)])])
    assert export_log(log, tmp_path / "files", form) == Moved(2, 2)
    assert sorted(file.name for file in (tmp_path / "files").iterdir()) == [f"events.{form}", f"impressions.{form}"]
    other = open_click_log(f"sqlite:///{tmp_path}/other.sqlite")
    assert import_log(other, tmp_path / "files") == Moved(2, 2)
    assert list(other.impressions()) == list(log.impressions())
    assert list(other.events()) == list(log.events())
    assert import_log(other, tmp_path / "files") == Moved(0, 0)
    other.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shown=st.lists(impressions, max_size=4), happened=st.lists(events, max_size=4), form=st.sampled_from(FORMATS))
def test_whatever_can_be_stored_comes_back(
    new_log: Callable[[], SqlClickLog], tmp_path: Path, shown: list[Impression], happened: list[Event], form: Format
) -> None:
    first, second = new_log(), new_log()
    first.add([Records(shown, happened)])
    earliest: dict[str, Impression] = {}
    for one in shown:
        earliest.setdefault(one.id, one)
    assert stored_impressions(first) == list(earliest.values())
    export_log(first, tmp_path / "files", form)
    for other in FORMATS:
        if other != form:
            for file in (tmp_path / "files").glob(f"*.{other}"):
                file.unlink()
    import_log(second, tmp_path / "files")
    assert stored_impressions(second) == stored_impressions(first)
    assert stored_events(second) == stored_events(first)
    first.close()
    second.close()


def test_duckdb_reads_the_files(log: SqlClickLog, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    log.add([Records([SHOWN], [CLICK, DWELL])])
    export_log(log, tmp_path)
    joined = f"""
        SELECT i.document_ids[e.position] = e.document_id, i.features::JSON ->> '$.a.bm25', e.kind, e.value
        FROM '{tmp_path}/impressions.parquet' i JOIN '{tmp_path}/events.parquet' e ON e.impression_id = i.id
        ORDER BY e.seq
    """
    assert duckdb.sql(joined).fetchall() == [(True, "1.5", "click", None), (True, "1.5", "dwell", 1 / 3)]


def test_files_may_be_minimal_and_in_parts(new_log: Callable[[], SqlClickLog], tmp_path: Path) -> None:
    impression = {"id": "i", "query_text": "q", "document_ids": ["a"], "pipeline": "", "model_version": ""}
    for part in range(2):
        line = {**impression, "id": f"i{part}", "shown_at": "2026-01-01T00:00:00Z", "of_my_own": 1}
        (tmp_path / f"impressions-{part}.jsonl").write_text(json.dumps(line) + "\n\n")
    log = new_log()
    assert import_log(log, tmp_path) == Moved(2, 0)
    assert [impression.id for impression in stored_impressions(log)] == ["i0", "i1"]
    log.close()


def test_a_bad_record_is_named_and_those_before_it_stay(new_log: Callable[[], SqlClickLog], tmp_path: Path) -> None:
    log = new_log()
    good = {"id": "e", "impression_id": "i", "document_id": "d", "kind": "click", "position": None}
    good["happened_at"] = "2026-01-01T00:00:00Z"
    lines = [json.dumps({**good, "id": f"{n}"}) for n in range(1500)]
    cases = [
        (json.dumps({**good, "kind": "look"}), r"events\.jsonl, record 1501: kind is 'look': Input should be 'click'"),
        (json.dumps({**good, "position": "x"}), "record 1501: position is 'x'"),
        ("{nonsense", r"events\.jsonl cannot be read after record 1500: "),
    ]
    for bad, message in cases:
        (tmp_path / "events.jsonl").write_text("\n".join([*lines, bad]))
        with pytest.raises(InvalidInputError, match=message):
            import_log(log, tmp_path)
    assert len(stored_events(log)) == 1000
    (tmp_path / "events.jsonl").rename(tmp_path / "events.parquet")
    with pytest.raises(InvalidInputError, match=r"events\.parquet cannot be read after record 0: "):
        import_log(log, tmp_path)
    log.close()


def test_a_folder_without_files_is_an_error(new_log: Callable[[], SqlClickLog], tmp_path: Path) -> None:
    log = new_log()
    with pytest.raises(NotFoundError, match=r"neither impressions\* nor events\*"):
        import_log(log, tmp_path / "nowhere")
    log.close()


def test_an_export_that_fails_leaves_the_old_file(new_log: Callable[[], SqlClickLog], tmp_path: Path) -> None:
    log = new_log()
    log.add_events([CLICK])
    export_log(log, tmp_path / "files", "jsonl")
    before = (tmp_path / "files" / "events.jsonl").read_bytes()

    class Failing(SqlClickLog):
        def events(self, since: int = 0):  # type: ignore[no-untyped-def]
            yield from super().events(since)
            raise OSError("the disk is full")

    failing = Failing(log._database)
    log.add_events([DWELL])
    with pytest.raises(OSError, match="full"):
        export_log(failing, tmp_path / "files", "jsonl")
    assert (tmp_path / "files" / "events.jsonl").read_bytes() == before
    assert len(list((tmp_path / "files").iterdir())) == 2
    log.close()


@pytest.mark.parametrize("form", FORMATS)
def test_memory_does_not_grow_with_the_log(new_log: Callable[[], SqlClickLog], tmp_path: Path, form: Format) -> None:
    def peak_of(count: int) -> int:
        log, other = new_log(), new_log()
        for start in range(0, count, 1000):
            log.add_events([replace(CLICK, id=f"{start + n}") for n in range(1000)])
        tracemalloc.start()
        export_log(log, tmp_path / f"{count}", form)
        import_log(other, tmp_path / f"{count}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        log.close()
        other.close()
        return peak

    peak_of(1000)  # what is loaded once
    assert peak_of(8000) < 1.5 * peak_of(2000)

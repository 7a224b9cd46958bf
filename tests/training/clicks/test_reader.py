import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankers.errors import InvalidInputError, NotFoundError
from tests.training.clicks.logs import EVENTS, IMPRESSIONS, START, Log
from training.clicks.filters import FilterRules, Reason, Removed
from training.clicks.reader import ReadClicks, log_files, read_click_lists
from training.ultr.lists import PADDING

DOCUMENTS = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=5, unique=True)
SHOWN = st.tuples(
    st.sampled_from(["red shoes", " Red  SHOES", "hats"]),
    DOCUMENTS,
    st.sampled_from(["list", "grid:2"]),
    st.sampled_from(["v1", "v2"]),
    st.lists(st.tuples(st.sampled_from("abcdefgx"), st.sampled_from([-60.0, 1.0, 9.0, 1e6])), max_size=6),
)

Collapsed = Counter[tuple[str, tuple[str, ...], str, str, tuple[bool, ...]]]


def collapsed(read: ReadClicks) -> Collapsed:
    """What was read, as sessions by query, list, layout, version and places clicked."""
    lists, keys = read.lists, read.keys
    assert lists.patterns is not None
    found: Collapsed = Counter()
    for number, clicked, sessions in zip(
        lists.patterns.lists, lists.patterns.clicked, lists.patterns.sessions, strict=True
    ):
        rows = lists.rows[number][lists.rows[number] != PADDING]
        query = keys.queries[lists.queries[number]]
        assert {keys.queries[keys.pair_queries[row]] for row in rows} == {query}
        layout = keys.slots[lists.slots[number, 0]].split()[0]
        documents = tuple(keys.document_ids[row] for row in rows)
        version = keys.version_names[keys.versions[number]]
        found[query, documents, layout, version, tuple(clicked[: len(rows)].tolist())] += int(sessions)
    return found


@settings(max_examples=25)
@given(st.lists(SHOWN, max_size=25))
def test_the_collapse_is_that_of_a_plain_loop(
    sessions: list[tuple[str, list[str], str, str, list[tuple[str, float]]]],
) -> None:
    log, expected = Log(), Collapsed()
    for number, (query, documents, layout, version, events) in enumerate(sessions):
        log.show(f"i{number}", documents, query=query, layout=layout, model_version=version)
        for document, at_s in events:
            log.event(f"i{number}", document, at_s=at_s)
        believed = {document for document, at_s in events if 0 <= at_s <= 24 * 3600}
        places = tuple(document in believed for document in documents)
        expected[" ".join(query.lower().split()), tuple(documents), layout, version, places] += 1
    with TemporaryDirectory() as folder:
        read = log.read(Path(folder))
    assert collapsed(read) == expected
    lists, report = read.lists, read.report
    assert lists.sessions == report.impressions_kept == len(sessions)
    assert report.clicks_kept == lists.clicks.sum()
    for table, total, kept in (
        ("impressions", report.impressions, report.impressions_kept),
        ("events", report.events, report.events_kept),
    ):
        assert total == kept + sum(removed.count for removed in report.removed if removed.table == table)
    assert lists.patterns is not None
    for number in range(len(lists.rows)):
        of_list = lists.patterns.lists == number
        assert lists.shown[number] == lists.patterns.sessions[of_list].sum()
        counted = lists.patterns.sessions[of_list] @ lists.patterns.clicked[of_list]
        assert lists.clicks[number].tolist() == counted.tolist()


def test_lists_longer_than_a_word_of_bits_keep_every_click(tmp_path: Path) -> None:
    documents = [f"d{i:03}" for i in range(130)]
    log = Log()
    log.show("i", documents)
    for place in (0, 59, 60, 61, 119, 120, 129):
        log.event("i", documents[place])
    lists = log.read(tmp_path).lists
    assert np.flatnonzero(lists.clicks[0]).tolist() == [0, 59, 60, 61, 119, 120, 129]


def test_features_are_the_most_recent_and_nan_where_missing(tmp_path: Path) -> None:
    log = Log()
    log.show("old", ["a", "b"], at_s=0, features={"a": {"price": 1.0, "age": 5.0}, "b": {"price": 2.0}})
    log.show("new", ["a", "b"], at_s=20, features={"a": {"price": 3.0, "age": None}, "b": {"price": 2.0}})
    log.show("other", ["b", "c"], at_s=10, features={"b": {"price": 9.0}})
    read = log.read(tmp_path)
    rows = read.keys.rows()
    assert read.lists.feature_names == ("age", "price")
    assert read.lists.features[rows["shoes", "a"], 1] == 3.0
    assert read.lists.features[rows["shoes", "b"], 1] == 2.0
    assert np.isnan(read.lists.features[[rows["shoes", "a"], rows["shoes", "b"]], 0]).all()
    assert np.isnan(read.lists.features[rows["shoes", "c"]]).all()
    assert read.lists_changed == 1


def test_features_are_those_of_the_set_that_is_named(tmp_path: Path) -> None:
    log = Log()
    log.show("one", ["a", "b"], at_s=0, features={"a": {"price": 1.0}, "b": {"price": 5.0}}, feature_set="shop@1")
    log.show("two", ["a", "b"], at_s=10, features={"a": {"price": 2.0}}, feature_set="shop@2")
    log.show("plain", ["b", "a"], at_s=20, feature_set="", pipeline="plain", model_version="plain@1")
    log.show("sent", ["b", "a"], at_s=30, features={"a": {"price": 7.0}}, feature_set=None, source="reported")
    log.event("one", "b", at_s=2)
    log.event("plain", "a", at_s=22, id="plain click")
    files = log.write(tmp_path)
    for name, others, price in (("shop@1", ("plain", "sent", "two"), 1.0), ("shop@2", ("one", "plain", "sent"), 2.0)):
        read = read_click_lists(*files, feature_set=name)
        assert read.lists.features[read.keys.rows()["shoes", "a"], 0] == price
        assert (read.lists.sessions, read.lists_changed) == (1, 0)
        assert read.report.removed[0] == Removed("impressions", Reason.OTHER_FEATURES, 3, others)
        assert read.report.removed[1].reason is Reason.REMOVED_IMPRESSION
        assert read.report.events == read.report.events_kept + read.report.removed[1].count == 2
    assert read_click_lists(*files, feature_set="shop@3").lists.sessions == 0


def test_a_later_list_without_features_of_a_document_leaves_those_it_had(tmp_path: Path) -> None:
    log = Log()
    log.show("deep", ["a", "b"], at_s=0, features={"a": {"price": 1.0}, "b": {"price": 5.0}})
    log.show("shallow", ["b", "a"], at_s=10, features={"b": {"price": 6.0}})
    read = log.read(tmp_path)
    assert [read.lists.features[read.keys.rows()["shoes", name], 0] for name in "ab"] == [1.0, 6.0]


def test_bots_are_known_by_what_they_do_elsewhere_too(tmp_path: Path) -> None:
    log = Log()
    log.show("here", ["a", "b", "c"], feature_set="shop@1", user_key="u")
    log.event("here", "a")
    for number in range(5):
        log.show(f"there {number}", ["a", "b", "c"], at_s=100 * number, feature_set="", user_key="u")
        for document_id in "abc":
            log.event(f"there {number}", document_id, at_s=100 * number + 1)
    read = read_click_lists(*log.write(tmp_path), feature_set="shop@1")
    assert read.lists.sessions == 0
    assert {(one.reason, one.count) for one in read.report.removed} == {
        (Reason.OTHER_FEATURES, 5),
        (Reason.ALL_PLACES, 1),
        (Reason.REMOVED_IMPRESSION, 15),
    }


def test_a_grid_has_slots_of_its_own(tmp_path: Path) -> None:
    log = Log()
    log.show("plain", ["a", "b"])
    log.show("wide", ["a", "b", "c"], layout="grid:2")
    read = log.read(tmp_path)
    named = [[read.keys.slots[slot] for slot in row] for row in read.lists.slots.tolist()]
    wide = ["grid:2 row 1 column 1", "grid:2 row 1 column 2", "grid:2 row 2 column 1"]
    assert sorted(named) == sorted([["list 1", "list 2", "list 1"], wide])
    odd = Log()
    odd.show("i", ["a"], layout="spiral")
    with pytest.raises(InvalidInputError, match="grid:COLUMNS"):
        odd.read(tmp_path / "odd")


def test_nothing_of_the_test_period_reaches_training(tmp_path: Path) -> None:
    log = Log()
    for seconds in range(10):
        log.show(f"i{seconds}", ["a", "b"], at_s=seconds, features={"a": {"ctr": float(seconds)}}, user_key="u")
        log.event(f"i{seconds}", "a", at_s=seconds + 2)
    for burst in range(100):
        log.show(f"burst{burst}", ["c", "a"], at_s=9, user_key="u")
    files = log.write(tmp_path)
    rules = FilterRules(impressions_per_minute=50)
    split = START + timedelta(seconds=5)
    train = read_click_lists(*files, until=split, rules=rules)
    assert train.lists.shown.tolist() == [5]
    assert train.lists.clicks.tolist() == [[3, 0]]  # those of 3 s and 4 s came at the split or later
    assert train.lists.features[0, 0] == 4.0
    assert train.keys.document_ids == ("a", "b")
    test = read_click_lists(*files, since=split, onto=train.keys, rules=FilterRules(impressions_per_minute=1_000))
    assert test.keys.document_ids == ("a", "b", "c")
    assert test.lists.sessions == 105
    assert read_click_lists(*files, since=split, rules=rules).lists.sessions == 0  # a bot by then


def test_reading_onto_known_keys_keeps_their_numbers(tmp_path: Path) -> None:
    first, second = Log(), Log()
    first.show("i", ["b", "c"], query="m")
    first.show("g", ["b"], query="m", layout="grid:2")
    second.show("i", ["a", "b"], query="m")
    second.show("j", ["b", "x", "y"], query="a")
    known = first.read(tmp_path / "first")
    read = read_click_lists(*second.write(tmp_path / "second"), onto=known.keys)
    assert read.keys.queries == ("m", "a")
    assert read.keys.document_ids[:2] == known.keys.document_ids
    assert read.keys.slots[:3] == known.keys.slots
    assert len(read.keys.slots) == 4
    found = {documents for _, documents, *_ in collapsed(read)}
    assert found == {("a", "b"), ("b", "x", "y")}


def test_json_lines_read_as_parquet_does(tmp_path: Path) -> None:
    log = Log()
    log.show("i", ["a", "b"], features={"a": {"x": 0.5}})
    log.show("j", ["b", "a"], features={"a": {"x": 0.5}}, session_key="s")
    log.event("i", "b", position=2)
    from_parquet = log.read(tmp_path / "parquet")
    folder = tmp_path / "lines"
    folder.mkdir()
    for name, rows in (("impressions", log.impressions), ("events", log.events)):
        text = "".join(json.dumps(dict(row), default=str) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    from_lines = read_click_lists(*log_files(folder))
    assert collapsed(from_lines) == collapsed(from_parquet)
    assert from_lines.report == from_parquet.report
    np.testing.assert_array_equal(from_lines.lists.features, from_parquet.lists.features)


def test_parts_and_a_small_memory_give_the_same(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    log = Log()
    for number in range(3_000):
        log.show(f"i{number}", generator.permutation(list("abcdef"))[:4].tolist(), query=f"q{number % 7}")
        log.event(f"i{number}", generator.choice(list("abcdef")))
    whole = log.read(tmp_path / "whole")
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in range(3):
        pq.write_table(
            pa.Table.from_pylist(log.impressions[part::3], IMPRESSIONS), folder / f"impressions-{part}.parquet"
        )
        pq.write_table(pa.Table.from_pylist(log.events[part::3], EVENTS), folder / f"events-{part}.parquet")
    parts = read_click_lists(*log_files(folder), memory_limit_mb=64, threads=2, temp_dir=tmp_path)
    for name in ("rows", "queries", "slots", "shown", "clicks"):
        np.testing.assert_array_equal(getattr(parts.lists, name), getattr(whole.lists, name))
    assert parts.keys.document_ids == whole.keys.document_ids
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("shortlist-clicks")]


def test_an_empty_log_is_empty_lists(tmp_path: Path) -> None:
    read = Log().read(tmp_path)
    assert read.lists.rows.shape == (0, 0)
    assert read.report.impressions == 0


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="impressions"):
        log_files(tmp_path)
    log = Log()
    log.show("i", ["a"])
    impressions, events = log.write(tmp_path)
    with pytest.raises(NotFoundError, match="nowhere"):
        read_click_lists([tmp_path / "nowhere.parquet"], events)
    with pytest.raises(InvalidInputError, match=r"lacks the columns .*query_text"):
        read_click_lists(events, events)
    with pytest.raises(InvalidInputError, match="time zone"):
        read_click_lists(impressions, events, until=START.replace(tzinfo=None))
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_click_lists([tmp_path / "broken.parquet"], events)

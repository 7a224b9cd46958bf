"""Filters answered from columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import bitmaps
from index.arrays import Arrays, open_arrays, write_arrays
from index.columns import Columns
from rankers.errors import CorruptIndexError
from rankers.filters import All, AnyOf, Between, Filter, Not, OneOf, matches, parse_filter

FIELDS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.sampled_from([-1.0, 0.0, 1.0, 2.5, 2.0**60])
TEXTS = st.sampled_from(["", "x", "xy", "é", "\U0001f600", "\uffff", "\ud800"])
VALUES = NUMBERS | TEXTS | st.booleans()
METADATA = st.dictionaries(FIELDS, VALUES | st.lists(VALUES | st.none(), max_size=3) | st.none() | st.just({"x": 1}))


def ranges(field: str) -> st.SearchStrategy[Filter]:
    sides = {"with_low": st.booleans(), "with_high": st.booleans()}
    return st.one_of(
        *(
            st.builds(Between, st.just(field), low, high, **sides)
            for kind in (NUMBERS, TEXTS)
            for low, high in ((kind, kind), (st.none(), kind), (kind, st.none()))
        )
    )


LEAVES: st.SearchStrategy[Filter] = st.builds(OneOf, FIELDS, st.lists(VALUES, max_size=3).map(tuple)) | FIELDS.flatmap(
    ranges
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(All, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.lists(METADATA, max_size=20), FILTERS)
def test_columns_agree_with_looking_at_every_row(metadata: list[dict[str, Any]], condition: Filter) -> None:
    rows = Columns.build(metadata).rows(condition)
    assert bitmaps.unpack(rows, len(metadata)).tolist() == [matches(condition, fields) for fields in metadata]
    assert bitmaps.size(rows) == sum(matches(condition, fields) for fields in metadata)  # no bit behind the last row


def test_saved_columns_answer_as_before(tmp_path: Path) -> None:
    metadata = [{"n": i % 7, "name": f"x{i}", "even": i % 2 == 0} for i in range(1000)]
    Columns.build(metadata).save(tmp_path)
    opened = Columns.open(tmp_path, verify=True)
    condition = parse_filter({"or": [{"field": "n", "gte": 5}, {"field": "name", "in": ["x3", "x999"]}]})
    expected = [i for i, fields in enumerate(metadata) if matches(condition, fields)]
    assert np.flatnonzero(bitmaps.unpack(opened.rows(condition), 1000)).tolist() == expected
    assert len(opened) == 1000
    assert Columns.open_if_there(tmp_path / "elsewhere") is None


@settings(max_examples=100)
@given(st.integers(0, 40), st.integers(0, 40), st.data())
def test_bitmaps(count: int, added: int, data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=np.bool_)
    bitmap = bitmaps.pack(mask)
    assert bitmaps.unpack(bitmap, count).tolist() == mask.tolist()
    assert bitmaps.has(bitmap, np.arange(count)).tolist() == mask.tolist()
    longer = bitmaps.extended(bitmap, count, added)
    assert bitmaps.unpack(longer, count + added).tolist() == mask.tolist() + [True] * added
    dead = np.flatnonzero(mask)[::2]
    assert bitmaps.size(bitmaps.without(bitmap, dead)) == bitmaps.size(bitmap) - len(dead)
    assert bitmaps.size(bitmaps.all_rows(count)) == count
    assert bitmaps.size(bitmap) == mask.sum()


def test_a_file_of_arrays_notices_every_change(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    written: Arrays = {"a": np.arange(5), "empty": np.empty(0, np.float32), "b": np.array([1.5], np.float32)}
    write_arrays(path, written)
    for name, array in open_arrays(path, verify=True).items():
        np.testing.assert_array_equal(array, written[name])
        assert array.dtype == written[name].dtype
    whole = path.read_bytes()
    used = [i for i in range(len(whole)) if whole[i]]  # the rest may be padding
    for at in used:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(CorruptIndexError, match=r"x\.bin"):
            open_arrays(path, verify=True)
    for size in (0, 7, 30, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptIndexError, match=r"x\.bin"):
            open_arrays(path)
    path.unlink()
    with pytest.raises(CorruptIndexError, match=r"x\.bin is missing"):
        open_arrays(path)

"""Layouts and hashed keys."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.events import Deleted, Layout, hash_key


@given(st.integers(1, 9999), st.integers(1, 10_000))
def test_places_of_a_grid_are_read_row_by_row(columns: int, position: int) -> None:
    layout = Layout(columns)
    row, column = layout.place(position)
    assert 1 <= column <= columns
    assert (row - 1) * columns + column == position
    assert Layout.parse(str(layout)) == layout


def test_a_list_has_one_column() -> None:
    assert Layout.parse("list") == Layout(1)
    assert Layout.parse("list").place(7) == (7, 1)


@pytest.mark.parametrize(
    "text", ["", "grid", "grid:", "grid:0", "grid:1", "grid:02", "grid:-3", "Grid:3", "grid:10000"]
)
def test_other_layouts_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"layout is '{text}'"):
        Layout.parse(text)


@given(st.text(), st.text(min_size=1))
def test_keys_are_hmac_sha256(value: str, salt: str) -> None:
    expected = hmac.digest(salt.encode(), value.encode(), "sha256").hex()
    assert hash_key(value, salt) == expected
    assert hash_key(value, salt + "x") != expected
    assert len(expected) == hashlib.sha256().digest_size * 2


def test_what_is_gone_adds_up() -> None:
    assert Deleted(1, 2) + Deleted(3, 4) == Deleted(4, 6)
    assert not Deleted(0, 0)
    assert Deleted(0, 1)

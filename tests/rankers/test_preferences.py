"""Which preferences of other queries are shown, and files of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankers.errors import ConfigError
from rankers.preferences import Preference, SimilarPreferences, read_preferences
from rankers.types import Document, Query

GOOD = '{"query": "life of fleas", "preferred": "Fleas live for months.", "other": "Bread is baked."}\n'


def about(text: str) -> Preference:
    return Preference(Query(text, text), Document("p", "yes"), Document("o", "no"))


def test_the_most_similar_queries_are_chosen_and_the_nearest_is_last() -> None:
    known = [about(text) for text in ("french capital", "how fleas live", "flea life cycle", "bread prices")]
    chosen = SimilarPreferences(known, count=2)(Query("q", "life cycles of fleas"))
    assert [preference.query.text for preference in chosen] == ["how fleas live", "flea life cycle"]


def test_a_query_is_not_shown_its_own_preferences() -> None:
    chosen = SimilarPreferences([about("fleas"), about("flea bites")])(Query("q", "fleas"))
    assert [preference.query.text for preference in chosen] == ["flea bites"]


def test_queries_that_share_nothing_are_chosen_in_the_order_given() -> None:
    chosen = SimilarPreferences([about("one"), about("two"), about("three")])(Query("q", "fleas"))
    assert [preference.query.text for preference in chosen] == ["two", "one"]


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "preferences.jsonl"
    path.write_text(GOOD + "\n" + GOOD.replace("fleas", "bees"))
    first, second = read_preferences(path)
    assert (first.query.text, first.preferred.text, first.other.text) == (
        "life of fleas",
        "Fleas live for months.",
        "Bread is baked.",
    )
    assert second.query.text == "life of bees"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + '{"query": "a", "preferred": "b"}', "line 2 of .*: other: Field required"),
        ('{"query": "a", "preferred": "b", "other": "c", "more": 1}', "line 1 of .*: more: "),
        ("not json", "line 1 of .*: line: Invalid JSON"),
    ],
)
def test_a_line_that_is_something_else_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "preferences.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_preferences(path)


def test_no_file_and_no_preferences_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preferences at"):
        read_preferences(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigError, match="at least one"):
        SimilarPreferences([])

"""The grammar of filters."""

from __future__ import annotations

from typing import Any

import pytest

from rankers.errors import InvalidInputError
from rankers.filters import All, AnyOf, Between, Not, OneOf, matches, parse_filter

METADATA = {
    "lang": "en",
    "year": 2005,
    "tags": ["a", "b", 3],
    "open": True,
    "price": 9.5,
    "none": None,
    "deep": {"x": 1},
}


def test_each_form_is_read() -> None:
    assert parse_filter({"field": "lang", "eq": "en"}) == OneOf("lang", ("en",))
    assert parse_filter({"field": "n", "in": [1, "x"]}) == OneOf("n", (1.0, "x"))
    assert parse_filter({"field": "n", "gt": 1, "lte": 2}) == Between("n", 1.0, 2.0, with_low=False)
    assert parse_filter({"field": "day", "lt": "2024-02"}) == Between("day", None, "2024-02", with_high=False)
    leaf = {"field": "a", "eq": 1}
    read = OneOf("a", (1.0,))
    assert parse_filter({"and": [leaf, {"or": [leaf]}, {"not": leaf}]}) == All((read, AnyOf((read,)), Not(read)))
    hash(parse_filter({"and": [leaf]}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"field": "lang", "eq": "en"}, True),
        ({"field": "lang", "eq": "EN"}, False),
        ({"field": "lang", "in": ["de", "en"]}, True),
        ({"field": "lang", "in": []}, False),
        ({"field": "year", "eq": 2005.0}, True),
        ({"field": "year", "eq": "2005"}, False),
        ({"field": "open", "eq": True}, True),
        ({"field": "open", "eq": 1}, False),
        ({"field": "year", "gte": 2005, "lt": 2006}, True),
        ({"field": "year", "gt": 2005}, False),
        ({"field": "lang", "gte": "em", "lt": "eo"}, True),
        ({"field": "lang", "gte": 1}, False),
        ({"field": "tags", "eq": "b"}, True),
        ({"field": "tags", "gt": 2}, True),
        ({"field": "none", "eq": "None"}, False),
        ({"field": "deep", "eq": 1}, False),
        ({"field": "missing", "eq": 1}, False),
        ({"not": {"field": "missing", "eq": 1}}, True),
        ({"and": [{"field": "lang", "eq": "en"}, {"field": "year", "lt": 2000}]}, False),
        ({"or": [{"field": "lang", "eq": "en"}, {"field": "year", "lt": 2000}]}, True),
    ],
)
def test_what_satisfies_it(content: dict[str, Any], expected: bool) -> None:
    assert matches(parse_filter(content), METADATA) is expected


def nested(levels: int) -> object:
    content: object = {"field": "a", "eq": 1}
    for _ in range(levels):
        content = {"not": content}
    return content


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        ([], "filter", "a filter is an object"),
        ({}, "filter", "exactly one of: and, or, not"),
        ({"and": [], "or": []}, "filter", "exactly one of"),
        ({"lang": "en"}, "filter", "exactly one of"),
        ({"and": []}, "filter.and", "a list of at least one filter"),
        ({"or": [{"field": "a", "eq": 1}, 3]}, "filter.or.1", "filter.or.1 is 3: a filter is an object"),
        ({"not": {"field": "a"}}, "filter.not", "compares with nothing"),
        ({"field": "", "eq": 1}, "filter.field", "the name of a metadata field"),
        ({"field": "a", "like": "x"}, "filter.like", "use eq, in, gt, gte, lt or lte"),
        ({"field": "a", "eq": None}, "filter.eq", "strings, finite numbers, true and false"),
        ({"field": "a", "eq": float("nan")}, "filter.eq", "finite numbers"),
        ({"field": "a", "eq": 10**400}, "filter.eq", "finite numbers"),
        ({"field": "a", "in": "xy"}, "filter.in", "a list of values"),
        ({"field": "a", "in": [1, [2]]}, "filter.in.1", "strings, finite"),
        ({"field": "a", "in": list(range(1001))}, "filter.in", "1001 values, the limit is 1000"),
        ({"field": "a", "eq": 1, "lt": 2}, "filter", "eq and in stand alone"),
        ({"field": "a", "gt": 1, "gte": 1}, "filter", "two bounds on one side"),
        ({"field": "a", "gt": 1, "lt": "x"}, "filter", "bounds are numbers, or they are strings"),
        ({"field": "a", "gt": True}, "filter", "bounds are numbers, or they are strings"),
        (nested(40), "filter" + ".not" * 32, "at most 32 levels"),
        ({"or": [{"field": "a", "eq": 1}] * 1000}, "filter.or.999", "1000 conditions"),
    ],
)
def test_what_is_wrong_is_named(content: object, field: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_filter(content)
    assert caught.value.field == field
    assert message in str(caught.value)

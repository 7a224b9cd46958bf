"""Filters: which documents may be found, by their metadata.

In JSON a filter is one of::

    {"field": "lang", "eq": "en"}                       the field has this value
    {"field": "lang", "in": ["en", "de"]}               ... one of these values
    {"field": "year", "gte": 2000, "lt": 2010}          ... a value between bounds: gt or gte, lt or lte
    {"and": [...]}   {"or": [...]}   {"not": {...}}     of other filters

Values are strings, numbers and booleans. A field that holds a list has each of its values, so ``eq`` finds the
documents whose list contains the value. A number never equals a string or a boolean; bounds are numbers, or strings
that are compared by code point, as ISO dates want. Numbers are compared as float64. A document without the field
satisfies only ``not``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rankers.errors import InvalidInputError

Value: TypeAlias = str | float | bool
BOUNDS = ("gt", "gte", "lt", "lte")
COMPARISONS = ("eq", "in", *BOUNDS)
MAX_DEPTH = 32
MAX_NODES = 1000


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field has one of the values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The field has a value between two bounds of one type; None where there is no bound."""

    field: str
    low: Value | None = None
    high: Value | None = None
    with_low: bool = True
    with_high: bool = True

    def holds(self, value: Value) -> bool:
        """Whether a value of the bounds' type lies between them."""
        above = self.low is None or value > self.low or (self.with_low and value == self.low)  # type: ignore[operator]
        below = self.high is None or value < self.high or (self.with_high and value == self.high)  # type: ignore[operator]
        return above and below


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = OneOf | Between | All | AnyOf | Not


def matches(condition: Filter, metadata: Mapping[str, Any]) -> bool:
    """Say whether a document satisfies a filter.

    Parameters
    ----------
    condition
        The filter.
    metadata
        Of the document.

    Returns
    -------
    bool
        Whether it may be found.

    Examples
    --------
    >>> matches(parse_filter({"field": "year", "gte": 2000, "lt": 2010}), {"year": [1990, 2005]})
    True
    >>> matches(parse_filter({"not": {"field": "lang", "eq": "en"}}), {})
    True
    """
    match condition:
        case OneOf(field, values):
            wanted = {_typed(value) for value in values}
            return any(_typed(value) in wanted for value in values_of(metadata, field))
        case Between(field):
            kind = type(condition.low if condition.low is not None else condition.high)
            return any(type(value) is kind and condition.holds(value) for value in values_of(metadata, field))
        case All(parts):
            return all(matches(part, metadata) for part in parts)
        case AnyOf(parts):
            return any(matches(part, metadata) for part in parts)
        case Not(part):
            return not matches(part, metadata)


def values_of(metadata: Mapping[str, Any], field: str) -> list[Value]:
    """Give the values of a field that filters can see: strings, booleans, numbers as floats; lists are opened."""
    held = metadata.get(field)
    found = held if isinstance(held, list | tuple) else (held,)
    return [value for value in map(_value, found) if value is not None]


def parse_filter(content: object) -> Filter:
    """Read a filter as it comes in JSON.

    Parameters
    ----------
    content
        What `json.loads` gave.

    Returns
    -------
    Filter
        Ready to use, and hashable.

    Raises
    ------
    InvalidInputError
        If it is not a filter; the message says where and what can stand there.

    Examples
    --------
    >>> parse_filter({"field": "lang", "in": ["en", "de"]})
    OneOf(field='lang', values=('en', 'de'))
    """
    return _Parser().parse(content, "filter", 1)


class _Parser:
    """Counts the nodes it reads, so that nobody sends a filter that takes longer than the search."""

    def __init__(self) -> None:
        self.nodes = 0

    def parse(self, content: object, path: str, depth: int) -> Filter:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise _wrong(path, content, f"a filter has at most {MAX_DEPTH} levels and {MAX_NODES} conditions")
        if not isinstance(content, Mapping):
            raise _wrong(path, content, "a filter is an object with field, and, or, or not")
        if "field" in content:
            return _comparison(content, path)
        if len(content) != 1 or not {"and", "or", "not"} & set(content):
            raise _wrong(path, content, "a filter has a field and comparisons, or exactly one of: and, or, not")
        (kind, inner), *_ = content.items()
        path = f"{path}.{kind}"
        if kind == "not":
            return Not(self.parse(inner, path, depth + 1))
        if not isinstance(inner, list) or not inner:
            raise _wrong(path, inner, "it takes a list of at least one filter")
        parts = tuple(self.parse(part, f"{path}.{i}", depth + 1) for i, part in enumerate(inner))
        return All(parts) if kind == "and" else AnyOf(parts)


def _comparison(content: Mapping[str, object], path: str) -> Filter:
    field = content["field"]
    if not isinstance(field, str) or not field:
        raise _wrong(f"{path}.field", field, "it must be the name of a metadata field")
    given = {name: value for name, value in content.items() if name != "field"}
    if unknown := [name for name in given if name not in COMPARISONS]:
        raise _wrong(f"{path}.{unknown[0]}", given[unknown[0]], f"there is no such comparison; use {_or(COMPARISONS)}")
    if not given:
        raise _wrong(path, content, f"it compares with nothing; add {_or(COMPARISONS)}")
    if len(given) > 1 and ("eq" in given or "in" in given):
        raise _wrong(path, content, "eq and in stand alone; use and to combine them with others")
    if "eq" in given:
        return OneOf(field, (_checked(given["eq"], f"{path}.eq"),))
    if "in" in given:
        return OneOf(field, _listed(given["in"], f"{path}.in"))
    return _between(field, given, path)


def _between(field: str, given: Mapping[str, object], path: str) -> Between:
    if {"gt", "gte"} <= set(given) or {"lt", "lte"} <= set(given):
        raise _wrong(path, dict(given), "it has two bounds on one side; keep the stricter one")
    bounds = {name: _checked(value, f"{path}.{name}") for name, value in given.items()}
    if any(isinstance(value, bool) for value in bounds.values()) or len({type(v) for v in bounds.values()}) > 1:
        raise _wrong(path, dict(given), "bounds are numbers, or they are strings")
    low, high = bounds.get("gt", bounds.get("gte")), bounds.get("lt", bounds.get("lte"))
    return Between(field, low, high, with_low="gt" not in given, with_high="lt" not in given)


def _listed(values: object, path: str) -> tuple[Value, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise _wrong(path, values, "it takes a list of values")
    if len(values) > MAX_NODES:
        raise InvalidInputError(f"{path} has {len(values)} values, the limit is {MAX_NODES}", field=path)
    return tuple(_checked(value, f"{path}.{i}") for i, value in enumerate(values))


def _checked(value: object, path: str) -> Value:
    found = _value(value)
    if found is None:
        raise _wrong(path, value, "values are strings, finite numbers, true and false")
    return found


def _value(value: object) -> Value | None:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def _typed(value: Value) -> tuple[type, Value]:
    return type(value), value  # because True == 1.0 in Python


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _wrong(path: str, value: object, allowed: str) -> InvalidInputError:
    shown = repr(value)
    return InvalidInputError(f"{path} is {shown if len(shown) < 80 else shown[:80] + '…'}: {allowed}", field=path)

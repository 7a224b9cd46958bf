"""Judged lists in the SVMlight form of LETOR: ``<label> qid:<query> 1:<value> 2:<value> ... # comment``.

A feature that a line leaves out is 0, as in SVMlight; ``NULL`` (LETOR's rank aggregation sets) is missing, NaN here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError, NotFoundError


@dataclass(frozen=True, slots=True)
class JudgedLists:
    """Documents of queries with features and labels.

    `features` float32 [N, F], `labels` int64 [N], `queries` int64 [N]: numbers of queries, rising from 0 without gaps,
    so that the rows of a query are together; `query_ids` their names.
    """

    features: npt.NDArray[np.float32]
    feature_names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]
    query_ids: tuple[str, ...]

    def starts(self) -> npt.NDArray[np.int64]:
        """First row of each query, and the number of rows at the end."""
        return np.searchsorted(self.queries, np.arange(len(self.query_ids) + 1)).astype(np.int64)


def read_svmlight(*paths: Path, group_sizes: Path | None = None, features: int | None = None) -> JudgedLists:
    """Read one or more files as one set.

    Parameters
    ----------
    *paths
        Files, read one after the other.
    group_sizes
        A file with the number of lines of each query, for files without ``qid``.
    features
        F; the highest number of a feature if not given. Features are numbered from 1 and named ``1``, ``2``, ...

    Returns
    -------
    JudgedLists
        In the order of the files.

    Raises
    ------
    NotFoundError
        If a file is missing.
    InvalidInputError
        If a line cannot be read, the lines of a query are not together, or the sizes do not add up.
    """
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    labels: list[int] = []
    names: list[str] = []
    for path in paths:
        for number, line in enumerate(_text(path).splitlines(), start=1):
            head, *pairs = line.partition("#")[0].split() or [""]
            if not head:
                continue
            try:
                if pairs and pairs[0].startswith("qid:"):
                    names.append(pairs.pop(0)[4:])
                for pair in pairs:
                    column, _, value = pair.partition(":")
                    columns.append(int(column) - 1)
                    values.append(float("nan") if value == "NULL" else float(value))
                rows += [len(labels)] * len(pairs)
                labels.append(int(float(head)))
            except ValueError as error:
                raise InvalidInputError(
                    f"{path}, line {number}: {error}; a line is '<label> qid:<q> 1:<x> ...'"
                ) from error
    if group_sizes is not None:
        sizes = [int(size) for size in _text(group_sizes).split()]
        names = [str(query) for query, size in enumerate(sizes, start=1) for _ in range(size)]
    if len(names) != len(labels):
        raise InvalidInputError(
            f"{len(names)} of {len(labels)} lines have a query; give qid on each line, or group_sizes"
        )
    highest = max(columns, default=-1) + 1
    width = highest if features is None else features
    if highest > width or min(columns, default=0) < 0:
        raise InvalidInputError(f"features are numbered {min(columns) + 1} to {highest}, must be within 1 and {width}")
    table = np.zeros((len(labels), width), dtype=np.float32)
    table[rows, columns] = values
    queries, query_ids = _number(names)
    return JudgedLists(table, tuple(str(i + 1) for i in range(width)), np.array(labels, np.int64), queries, query_ids)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}") from error


def _number(names: list[str]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Number queries in order of appearance; refuse a query that appears again after another."""
    numbers: dict[str, int] = {}
    found = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    back = np.flatnonzero(np.diff(found) < 0)
    if len(back):
        raise InvalidInputError(f"query {names[back[0] + 1]!r} appears again after others; keep its lines together")
    return found, tuple(numbers)

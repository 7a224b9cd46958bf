"""Two rankings shown as one, so that clicks say which of them people prefer: team-draft interleaving.

Radlinski, Kurup, Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from rankers.errors import InvalidInputError
from rankers.types import Ranking

Item = TypeVar("Item", bound=Hashable)

NEITHER = ""
"""The arm of places that say nothing about which ranking is better."""


@dataclass(frozen=True, slots=True)
class Interleaved:
    """A ranking drafted from two, and for each place the name of the arm that chose it, or `NEITHER`."""

    ranking: Ranking
    arms: tuple[str, ...]


def team_draft(
    first: Ranking, second: Ranking, *, names: tuple[str, str], generator: Random, top_k: int | None = None
) -> Interleaved:
    """Interleave two rankings of one query by drafting teams.

    Parameters
    ----------
    first
        One arm's ranking.
    second
        The other's.
    names
        What the arms are called in the log.
    generator
        Source of chance; seeded with the id of the impression, the draft can be repeated.
    top_k
        Places to draft; as many as the longer ranking has if not given.

    Returns
    -------
    Interleaved
        With scores of 1 / rank: those of two rankings cannot be compared.

    Raises
    ------
    InvalidInputError
        If the names are equal or empty.
    """
    if names[0] == names[1] or NEITHER in names:
        raise InvalidInputError(f"the arms are called {names[0]!r} and {names[1]!r}; give them two different names")
    places = max(len(first), len(second)) if top_k is None else top_k
    order, arms = draft(first.ids, second.ids, names=names, generator=generator)
    documents = {document.id: document for document in (*second.documents, *first.documents)}
    ranking = Ranking.from_order(first.query, [documents[document_id] for document_id in order[:places]])
    return Interleaved(ranking, tuple(arms[:places]))


def draft(
    first: Sequence[Item], second: Sequence[Item], *, names: tuple[str, str], generator: Random
) -> tuple[list[Item], list[str]]:
    """Draft teams: the smaller team picks next, a coin decides between equals, and each picks its best that is left.

    What both rankings begin with belongs to `NEITHER`: whoever picked it, a click on it would be chance (Chapelle,
    Joachims, Radlinski, Yue, "Large-scale validation and analysis of interleaved search evaluation", TOIS 2012). So
    does what remains once a team has nothing left to pick, since the other has no rival there.

    Parameters
    ----------
    first
        Items of one arm, best first, none twice.
    second
        Items of the other.
    names
        What the arms are called.
    generator
        Source of chance.

    Returns
    -------
    tuple
        All items of both, and the arm of each place.

    Examples
    --------
    >>> draft(["a", "b", "c"], ["a", "c", "b"], names=("x", "y"), generator=Random(0))
    (['a', 'c', 'b'], ['', 'y', 'x'])
    >>> draft(["a", "b"], ["a", "b"], names=("x", "y"), generator=Random(0))
    (['a', 'b'], ['', ''])
    """
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    order, arms = list(first[:shared]), [NEITHER] * shared
    taken = set(order)
    left = ([item for item in first if item not in taken], [item for item in second if item not in taken])
    picked = [0, 0]
    while left[0] and left[1]:
        team = generator.randrange(2) if picked[0] == picked[1] else int(picked[0] > picked[1])
        item = left[team][0]
        order.append(item)
        arms.append(names[team])
        picked[team] += 1
        for items in left:
            if item in items:
                items.remove(item)
    rest = left[0] or left[1]
    return order + rest, arms + [NEITHER] * len(rest)

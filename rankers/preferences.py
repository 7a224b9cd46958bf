"""Preferences of other queries for pairwise ranking prompting, and which of them to show (few-shot PRP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rankers.errors import ConfigError
from rankers.ltr.terms import CollectionStatistics, bm25, splitter
from rankers.types import Document, Query

STEMMER = "english"


@dataclass(frozen=True, slots=True)
class Preference:
    """What is known about another query: of two documents, the one that answers it better."""

    query: Query
    preferred: Document
    other: Document


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str
    preferred: str
    other: str


class SimilarPreferences:
    """Chooses preferences for a query: those of the queries that share most with it.

    They are found by BM25 over the texts of these queries, stemmed as English.

    Parameters
    ----------
    preferences
        At least one.
    count
        How many to choose.

    Raises
    ------
    ConfigError
        If there are no preferences.
    """

    def __init__(self, preferences: Sequence[Preference], *, count: int = 2) -> None:
        if not preferences:
            raise ConfigError("there are no preferences to choose from; give at least one")
        self._preferences = tuple(preferences)
        self._count = count
        self._terms = [splitter(STEMMER).terms(preference.query.text) for preference in preferences]
        self._statistics = CollectionStatistics.of(self._terms)

    def __call__(self, query: Query) -> list[Preference]:
        """Choose for a query.

        Parameters
        ----------
        query
            Preferences of a query with the same text are never chosen: they may show a candidate judged.

        Returns
        -------
        list of Preference
            The most similar last, next to the question; equally similar ones in the order given.
        """
        ours = dict.fromkeys(splitter(STEMMER).terms(query.text))
        found = [
            (-bm25(ours, terms, self._statistics), place)
            for place, terms in enumerate(self._terms)
            if self._preferences[place].query.text != query.text
        ]
        return [self._preferences[place] for _, place in reversed(sorted(found)[: self._count])]


def read_preferences(path: Path) -> list[Preference]:
    """Read preferences.

    Parameters
    ----------
    path
        JSON lines, each with the texts ``query``, ``preferred`` and ``other``.

    Returns
    -------
    list of Preference
        In the order of the file.

    Raises
    ------
    ConfigError
        If the file is missing, or a line is something else; the message has its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"no preferences at {path}: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            sent = _Line.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "line"
            raise ConfigError(
                f"line {number} of {path}: {where}: {problem['msg']}; each needs the texts query, preferred and other"
            ) from error
        name = f"{path.name}:{number}"
        found.append(
            Preference(Query(name, sent.query), Document(f"{name}+", sent.preferred), Document(f"{name}-", sent.other))
        )
    return found

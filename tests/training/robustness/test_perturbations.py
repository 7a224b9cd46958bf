"""Typos, other words, other orders: as much as asked for, and the same for the same seed."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.training.robustness.rankers import DOCUMENTS
from training.robustness.perturbations import (
    REWRITTEN_SUFFIX,
    SIMILAR_WORDS,
    WordSubstitution,
    both_offered,
    rebuilt,
    shuffled,
    turned_round,
    with_typo,
)

RANKING = Ranking.from_scores(Query("q1", "ships"), DOCUMENTS, range(20, 0, -1), score_kind=ScoreKind.LEXICAL)
SEEDS = st.integers(0, 2**31)


def edits(one: str, other: str) -> int:
    """Damerau-Levenshtein distance (optimal string alignment), by its recurrence."""
    table = [[max(i, j) if min(i, j) == 0 else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (one[i - 1] != other[j - 1])
            )
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


@given(text=st.text(alphabet="abpqzAZ éſ1-", max_size=30), seed=SEEDS)
def test_a_typo_is_one_slip_in_one_word_that_is_long_enough(text: str, seed: int) -> None:
    mistyped = with_typo(Query("q", text), seed=seed)
    assert mistyped == with_typo(Query("q", text), seed=seed)
    assert mistyped.id == "q"
    assert edits(text, mistyped.text) == (1 if re.search(r"[a-zA-Z]{4}", text) else 0)


def test_every_kind_of_typo_occurs() -> None:
    typos = {with_typo(Query(str(i), "deep"), seed=0).text for i in range(300)}
    assert {"edep", "depe", "eep", "dep", "dee", "ddeep", "deepp", "seep", "feep", "dwep", "drep", "deeo"} <= typos


@given(seed=SEEDS, depth=st.integers(1, 25))
def test_only_the_head_changes_place(seed: int, depth: int) -> None:
    for changed in (shuffled(RANKING, depth, seed=seed), turned_round(RANKING, depth)):
        assert sorted(changed.ids[:depth]) == sorted(RANKING.ids[:depth])
        assert changed.ids[depth:] == RANKING.ids[depth:]
    assert shuffled(RANKING, depth, seed=seed).ids == shuffled(RANKING, depth, seed=seed).ids


def test_another_query_or_document_keeps_places_and_scores() -> None:
    changed = rebuilt(RANKING, query=Query("q1", "shisp"), change=lambda d: Document(d.id, "nothing"))
    assert (changed.ids, changed.scores, changed.score_kind) == (RANKING.ids, RANKING.scores, ScoreKind.LEXICAL)
    assert changed.query.text == "shisp"
    assert {document.text for document in changed.documents} == {"nothing"}


WORDS = [f"w{i}" for i in range(60)]
"""w0 is in one document, w1 in two, and so on."""
COLLECTION = [Document(str(n), " ".join(WORDS[n:])) for n in range(60)]


@given(seed=SEEDS, rate=st.floats(0.01, 1.0), start=st.integers(0, 59))
def test_so_many_words_are_replaced_by_words_of_similar_frequency(seed: int, rate: float, start: int) -> None:
    substitute = WordSubstitution(COLLECTION, rate=rate)
    document = Document("d", "-".join(WORDS[start:]) + "!", "Unknown!")
    changed = substitute(document, seed=seed)
    assert changed == WordSubstitution(COLLECTION, rate=rate)(document, seed=seed)
    assert changed.title == "Unknown!"  # no word of the collection, so nothing is as frequent
    pairs = list(zip(re.findall(r"\w+", document.text), re.findall(r"\w+", changed.text), strict=True))
    assert sum(old != new for old, new in pairs) == round(rate * len(pairs))
    frequencies = Counter(word for d in COLLECTION for word in d.text.split())
    assert all(abs(frequencies[old] - frequencies[new]) <= SIMILAR_WORDS for old, new in pairs)
    assert re.sub(r"\w+", "", changed.text) == re.sub(r"\w+", "", document.text)


def test_a_capital_stays_and_a_title_changes_too() -> None:
    changed = WordSubstitution([Document("a", "red fox")], rate=1.0)(Document("b", "Red fox", "Fox"), seed=0)
    assert (changed.title, changed.text) == ("Red", "Fox red")


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInputError, match="above 0 and at most 1"):
        WordSubstitution(COLLECTION, rate=rate)


def test_a_collection_of_one_word_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="1 different words"):
        WordSubstitution([Document("a", "red Red")], rate=0.5)


def test_pairs_fit_what_the_ranker_sees() -> None:
    rewrites = {d.id: Document(d.id, "verily") for d in DOCUMENTS if d.id != "d01"}
    offered = both_offered(RANKING, rewrites, 5, rewritten_first=True)
    assert offered.ids == ("d00" + REWRITTEN_SUFFIX, "d00", "d02" + REWRITTEN_SUFFIX, "d02")
    assert offered.documents[0].text == "verily"

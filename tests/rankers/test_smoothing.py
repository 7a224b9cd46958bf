"""Votes over thinned copies, and certificates against every substitution there is in a tiny world."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import ConfigError, InvalidInputError
from rankers.smoothing import SmoothedRanker, largest_substitution
from rankers.types import Document, Evidence, Ranking, ScoreKind
from tests.rankers.build import QUERY, ordered

Words = tuple[str, ...]
Score = Callable[[str], float]


class ByText:
    """Orders by a number computed from the text; remembers what it was shown."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.shown: list[Ranking] = []

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        self.shown.extend(rankings)
        return [
            Ranking.from_scores(
                ranking.query,
                ranking.documents,
                [self.score(document.content) for document in ranking.documents],
                score_kind=ScoreKind.LOGIT,
                previous=ranking,
                evidence=Evidence(tokens=10, generated_tokens=1),
            )
            for ranking in rankings
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        return 4 * len(ranking)


def good_words(text: str) -> float:
    """More good words are better."""
    return float(text.split().count("good"))


def capricious(text: str) -> float:
    """Any change of the text changes everything."""
    return float(zlib.crc32(text.encode()))


def candidates(texts: Mapping[str, Words]) -> Ranking:
    return Ranking.from_order(QUERY, [Document(i, " ".join(words)) for i, words in texts.items()])


def shares(texts: Mapping[str, Words], score: Score, *, kept: int, top_k: int) -> dict[str, Fraction]:
    """Give the exact probability of each document to be among the first `top_k`: every way to keep words, counted."""
    counts = dict.fromkeys(texts, 0)
    copies = list(itertools.product(*(itertools.combinations(words, kept) for words in texts.values())))
    for copy in copies:
        scores = {i: score(" ".join(words)) for i, words in zip(texts, copy, strict=True)}
        for document_id in sorted(scores, key=lambda i: -scores[i])[:top_k]:
            counts[document_id] += 1
    return {i: Fraction(count, len(copies)) for i, count in counts.items()}


def substitutions(words: Words, changed: int, vocabulary: Words) -> Iterator[Words]:
    """Give every text that differs from this one in at most `changed` words."""
    for places in itertools.combinations(range(len(words)), changed):
        for new in itertools.product(vocabulary, repeat=changed):
            replaced = dict(zip(places, new, strict=True))
            yield tuple(replaced.get(i, word) for i, word in enumerate(words))


def is_outside(document_id: str, probabilities: Mapping[str, Fraction], top_k: int) -> bool:
    others = [p for i, p in probabilities.items() if i != document_id]
    return sum(p > probabilities[document_id] for p in others) >= top_k


def certificate(texts: Mapping[str, Words], document_id: str, score: Score, *, kept: int, top_k: int) -> int:
    exact = shares(texts, score, kept=kept, top_k=top_k)
    others = sorted((p for i, p in exact.items() if i != document_id), reverse=True)
    return largest_substitution(float(others[top_k - 1] - exact[document_id]), words=len(texts[document_id]), kept=kept)


WORLDS = [
    ({"a": ("good",) * 4, "b": ("bad",) * 6}, 1, 1, good_words),
    ({"a": ("good", "good", "bad"), "b": ("good", "good", "good"), "c": ("bad",) * 5}, 1, 2, good_words),
    ({"a": ("good", "good", "good", "bad"), "b": ("bad",) * 5}, 2, 1, good_words),
    ({"a": ("x", "good", "bad"), "b": ("bad", "x", "x", "good", "x", "bad")}, 1, 1, capricious),
    ({"a": ("x", "x", "bad"), "b": ("x", "x", "x"), "c": ("good",) * 5 + ("x",)}, 1, 2, capricious),
]


@pytest.mark.parametrize(("texts", "kept", "top_k", "score"), WORLDS)
def test_no_substitution_breaks_a_certificate(texts: dict[str, Words], kept: int, top_k: int, score: Score) -> None:
    vocabulary = ("good", "bad", "x")
    for document_id, words in texts.items():
        for changed in range(1, certificate(texts, document_id, score, kept=kept, top_k=top_k) + 1):
            for other in substitutions(words, changed, vocabulary):
                after = shares({**texts, document_id: other}, score, kept=kept, top_k=top_k)
                assert is_outside(document_id, after, top_k), (document_id, other)


def test_these_certificates_are_worth_something() -> None:
    found = [
        max(certificate(texts, document_id, score, kept=kept, top_k=top_k) for document_id in texts)
        for texts, kept, top_k, score in WORLDS
    ]
    assert found[0] == 2
    assert sum(certified > 0 for certified in found) >= 3


def test_one_word_more_than_certified_can_be_too_many() -> None:
    # b wins where it shows a good word and a does not: the two shares meet in the middle.
    texts = {"a": ("meh",), "b": ("bad",) * 6}
    value = {"meh": 1.0, "bad": 0.0, "good": 2.0}.__getitem__
    assert certificate(texts, "b", value, kept=1, top_k=1) == 2
    after = shares({**texts, "b": ("good",) * 3 + ("bad",) * 3}, value, kept=1, top_k=1)
    assert not is_outside("b", after, 1)


@given(st.integers(1, 9), st.data())
def test_the_shift_is_the_share_of_choices_that_keep_a_changed_word(words: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, words))
    choices = list(itertools.combinations(range(words), kept))
    seen = [Fraction(sum(min(choice) < changed for choice in choices), len(choices)) for changed in range(words + 1)]
    gap = data.draw(st.integers(-20, 20)) / 20
    expected = max([changed for changed, delta in enumerate(seen) if gap > 2 * delta], default=0)
    # A gap of exactly twice the shift is a matter of rounding.
    if all(abs(gap - 2 * delta) > 1e-12 for delta in seen):
        assert largest_substitution(gap, words=words, kept=kept) == expected


def test_long_documents_have_certificates_too() -> None:
    # delta = 1 - C(4995, 50) / C(5000, 50), about 5%.
    assert largest_substitution(0.11, words=5000, kept=50) == 5
    assert largest_substitution(1.0, words=0, kept=0) == 0


def test_sampled_shares_are_near_the_exact_ones_and_their_certificates_hold() -> None:
    texts, kept, top_k, score = WORLDS[0]
    smoothed = SmoothedRanker(ByText(score), keep=0.2, samples=400, top_k=top_k, seed=3)
    (ranking,) = smoothed.rank([candidates(texts)])
    exact = shares(texts, score, kept=kept, top_k=top_k)
    assert dict(zip(ranking.ids, ranking.scores, strict=True)) == pytest.approx(exact, abs=0.08)
    # margin: sqrt(ln(2 * 2 / 0.05) / 800) = 0.074; 1 - 2 * 0.074 > 2 * 2 / 6
    assert smoothed.certified_words(ranking) == {"b": 2}
    assert smoothed.certified_words(ranking, confidence=1 - 1e-12) == {"b": 1}


def test_sampled_shares_of_a_capricious_ranker_converge() -> None:
    texts, kept, top_k, score = WORLDS[3]
    (ranking,) = SmoothedRanker(ByText(score), keep=0.2, samples=1000, top_k=top_k).rank([candidates(texts)])
    exact = shares(texts, score, kept=kept, top_k=top_k)
    # Hoeffding: off by 0.08 with probability 2 exp(-2 * 1000 * 0.08^2) < 1e-5.
    assert dict(zip(ranking.ids, ranking.scores, strict=True)) == pytest.approx(exact, abs=0.08)


def test_few_samples_or_many_kept_words_certify_nothing() -> None:
    texts = candidates(WORLDS[0][0])
    # 2 delta is 5/3 for 5 of 6 words; the margin of 15 samples leaves a gap of 0.24, under 2 delta = 1/3 for 1 of 6.
    for keep, samples in ((0.8, 2000), (0.2, 15)):
        smoothed = SmoothedRanker(ByText(good_words), keep=keep, samples=samples, top_k=1)
        (ranking,) = smoothed.rank([texts])
        assert ranking.ids == ("a", "b")
        assert smoothed.certified_words(ranking) == {"b": 0}


def test_with_every_word_kept_it_is_the_ranker() -> None:
    ranking = candidates({str(i): ("good",) * (i % 4) + ("bad",) for i in range(9)})
    (plain,) = ByText(good_words).rank([ranking])
    for top_k in (1, 4, 9, 20):
        (smoothed,) = SmoothedRanker(ByText(good_words), keep=1, samples=2, top_k=top_k).rank([ranking])
        assert smoothed.ids == plain.ids
        assert smoothed.scores == tuple(float(rank <= top_k) for rank in range(1, 10))


def test_a_rerun_is_identical_and_other_rankings_do_not_matter() -> None:
    one = candidates({i: ("good", "bad", "x", i) * 3 for i in "abcdef"})
    other = candidates({i: ("bad", i) for i in "ghi"})
    smoothed = SmoothedRanker(ByText(capricious), keep=0.5, top_k=2)
    assert repr(smoothed.rank([one])) == repr(smoothed.rank([one]))
    assert smoothed.rank([one, other]) == smoothed.rank([one]) + smoothed.rank([other])
    reseeded = SmoothedRanker(ByText(capricious), keep=0.5, top_k=2, seed=1)
    assert reseeded.rank([one])[0].scores != smoothed.rank([one])[0].scores


def test_copies_keep_a_fixed_number_of_words_in_their_order_and_nothing_else_changes() -> None:
    document = Document("d", "c d e f g", title="a b", features={"price": 1.0}, metadata={"shelf": 4})
    retrieved = Ranking.from_scores(QUERY, [document, Document("e", "")], [3.0, 2.0], score_kind=ScoreKind.LEXICAL)
    given_ranking = Ranking.from_order(QUERY, retrieved.documents, previous=retrieved)
    ranker = ByText(good_words)
    (result,) = SmoothedRanker(ranker, keep=0.6, samples=50).rank([given_ranking])
    seen = set()
    for copy in ranker.shown:
        thinned, empty = copy.documents
        kept = thinned.content.split()
        assert len(kept) == 4  # of 7: round(4.2)
        assert kept == sorted(kept)
        assert set(thinned.title) <= set("a b")
        assert not set(thinned.text) & set("ab")
        assert (thinned.id, thinned.features, thinned.metadata) == ("d", document.features, document.metadata)
        assert empty == retrieved.documents[1]
        assert copy.origin.scores == retrieved.scores
        assert copy.origin.documents == copy.documents, "the whole text must not be found in an earlier ranking"
        seen.add(tuple(kept))
    assert len(seen) > 20  # of 35
    assert (len(ranker.shown), result.evidence) == (50, Evidence(tokens=500, generated_tokens=50))
    assert result.previous is given_ranking
    assert result.ids == ("d", "e")
    assert result.documents[0] is document


def test_the_words_do_not_steer_which_words_are_kept() -> None:
    places: list[list[list[int]]] = []
    for letters in ("abcdefgh", "stuvwxyz"):
        ranker = ByText(good_words)
        SmoothedRanker(ranker, keep=0.3).rank([candidates({"d": tuple(letters)})])
        places.append([[letters.index(word) for word in copy.documents[0].text.split()] for copy in ranker.shown])
    assert places[0] == places[1]


def test_small_and_empty_rankings() -> None:
    smoothed = SmoothedRanker(ByText(good_words), samples=3, top_k=2)
    assert smoothed.rank([]) == []
    empty, two = smoothed.rank([ordered(), ordered("a", "b")])
    assert empty.ids == ()
    assert two.ids == ("a", "b")
    assert smoothed.certified_words(two) == {}
    assert smoothed.cost_tokens(two) == 3 * 4 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 0.0}, "keep is 0.0"),
        ({"keep": 1.1}, "keep is 1.1"),
        ({"samples": 0}, "samples is 0"),
        ({"top_k": 0}, "top_k is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SmoothedRanker(ByText(good_words), **arguments)  # type: ignore[arg-type]


def test_certificates_are_given_for_smoothed_rankings_only() -> None:
    smoothed = SmoothedRanker(ByText(good_words))
    with pytest.raises(InvalidInputError, match="scores are of kind 'rank'"):
        smoothed.certified_words(ordered("a"))
    with pytest.raises(InvalidInputError, match="confidence is 1"):
        smoothed.certified_words(smoothed.rank([ordered("a")])[0], confidence=1)

"""Excerpts: what is kept of a document, in which order, and that rankings come back whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import ConfigError
from rankers.excerpts import ExcerptRanker, excerpt
from rankers.fused import FusedRanker
from rankers.pointwise import CrossEncoderScorer, PointwiseRanker
from rankers.protocols import Ranker, joins_of
from rankers.pull import pull_model
from rankers.types import Document, Query, Ranking

QUERY = Query("q", "when do foxes hunt?")
RAIN = "It rained all day and nobody went out. "
ANSWER = "A fox hunts at night."
LONG = Document("long", RAIN * 30 + ANSWER + RAIN * 30, title="Diary")
SHORT = Document("short", "Foxes are red.")
WORDS = st.lists(st.sampled_from(["fox", "hunts.", "day", "rain!", "red", "\n"]), max_size=60).map(" ".join)


def test_the_sentences_that_share_words_with_the_query_are_kept_in_the_order_of_the_text() -> None:
    (shown,) = excerpt(QUERY, [LONG], words=20)
    assert shown.title == "Diary"
    assert ANSWER in shown.text
    assert shown.text.startswith("It rained all day")
    assert len(shown.content.split()) == 20


def test_rare_words_of_the_list_weigh_more_than_common_ones() -> None:
    others = [Document(str(i), "Foxes are red. Foxes are quick. Foxes are shy.") for i in range(5)]
    text = "Foxes are red and quick and shy. The zorilla is striped. It rains here every day of a long year."
    shown = excerpt(Query("q", "foxes and the zorilla"), [*others, Document("d", text)], words=12)[-1]
    assert "zorilla" in shown.text


def test_a_text_without_sentences_is_cut_into_parts() -> None:
    text = " ".join(["rain"] * 100 + ["fox", "hunts"] + ["rain"] * 100)
    (shown,) = excerpt(QUERY, [Document("d", text)], words=20)
    assert "fox" in shown.text
    assert len(shown.text.split()) == 20


def test_a_long_title_leaves_half_of_the_words_to_the_text() -> None:
    (shown,) = excerpt(QUERY, [Document("d", RAIN * 3, title="word " * 40)], words=10)
    assert len(shown.title.split()) == 5
    assert len(shown.text.split()) == 5


@pytest.mark.parametrize("words", [1, 10])
def test_a_title_without_a_text_is_cut(words: int) -> None:
    (shown,) = excerpt(QUERY, [Document("d", " ", title="word " * 40)], words=words)
    assert len(shown.title.split()) == words


def test_without_a_shared_word_the_beginning_is_kept() -> None:
    (shown,) = excerpt(Query("q", "?"), [Document("d", "One two. Three four. Five six.")], words=4)
    assert shown.text == "One two. Three four."


@given(title=WORDS, text=WORDS, words=st.integers(1, 30))
def test_excerpts_hold_words_of_the_document_and_never_more_than_asked_for(title: str, text: str, words: int) -> None:
    document = Document("d", text, title=title)
    (shown,) = excerpt(QUERY, [document], words=words)
    assert len(shown.content.split()) <= words or shown is document
    assert set(shown.content.split()) <= set(document.content.split())
    if len(document.content.split()) <= words:
        assert shown is document


class Reader:
    """Remembers what it was shown and turns the list around."""

    def __init__(self) -> None:
        self.shown: list[Ranking] = []

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        self.shown += rankings
        return [Ranking.from_order(r.query, r.documents[::-1], previous=r) for r in rankings]

    def cost_tokens(self, ranking: Ranking) -> int:
        return sum(len(document.content.split()) for document in ranking.documents)


def test_a_ranker_sees_excerpts_everywhere_and_the_documents_come_back_whole() -> None:
    first = Ranking.from_order(QUERY, [SHORT, LONG])
    incoming = Ranking.from_order(QUERY, [LONG, SHORT], previous=first)
    reader = Reader()
    ranker = ExcerptRanker(reader, words=20)
    (ranked,) = ranker.rank([incoming])
    (shown,) = reader.shown
    assert all(len(document.content.split()) <= 20 for ranking in shown.history() for document in ranking.documents)
    assert ranked.documents == (SHORT, LONG)
    assert ranked.previous == incoming
    assert ranker.cost_tokens(incoming) == 20 + 3


@pytest.mark.parametrize("wrap", [partial(ExcerptRanker, words=20), partial(FusedRanker, incoming_weight=0.5)])
def test_requests_that_would_be_merged_still_are(wrap: Callable[[Ranker], Ranker]) -> None:
    assert joins_of(wrap(Reader())) is None

    class Joining(Reader):
        joins = "scheduler"

    assert joins_of(wrap(Joining())) == "scheduler"


def test_a_cross_encoder_finds_what_it_would_have_cut(tmp_path: Path) -> None:
    scorer = CrossEncoderScorer(str(pull_model("minilm-cross-encoder", models_dir=tmp_path)), max_tokens=40)
    incoming = Ranking.from_order(QUERY, [LONG, SHORT])
    whole, short = Document("long", "Diary " + RAIN * 60), Document("short", "Foxes are red.")
    unread = PointwiseRanker(scorer).rank([Ranking.from_order(QUERY, [whole, short])])[0]
    ranked = ExcerptRanker(PointwiseRanker(scorer), words=20).rank([incoming])[0]
    scores = dict(zip(ranked.ids, ranked.scores, strict=True))
    assert scores["long"] > dict(zip(unread.ids, unread.scores, strict=True))["long"]
    reading = ranked.evidence.readings["long"]
    assert reading.truncated
    assert reading.tokens_total > 10 * reading.tokens_used
    assert not ranked.evidence.readings["short"].truncated


def test_no_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="excerpt_words is 0, must be at least 1"):
        ExcerptRanker(Reader(), words=0)

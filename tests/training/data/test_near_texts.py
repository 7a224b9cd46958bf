"""Near texts are those with a great Jaccard similarity, and no others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.near_texts import NearTexts, content_words, word_trigrams

sentences = st.lists(st.sampled_from(["red", "green", "blue", "big", "small"]), max_size=8).map(" ".join)


@given(st.lists(sentences, max_size=6), sentences, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_the_nearest_is_the_one_brute_force_finds(texts: list[str], text: str, threshold: float) -> None:
    near = NearTexts([(str(i), t) for i, t in enumerate(texts)], shingles=word_trigrams, threshold=threshold)
    own = word_trigrams(text)
    similarities = [len(own & s) / len(own | s) if own | s else 0.0 for s in map(word_trigrams, texts)]
    best = max(similarities, default=0.0)
    found = near.nearest(text)
    if best < threshold or best == 0:
        assert found is None
    else:
        assert found is not None
        assert found[0] == str(similarities.index(best))
        assert found[1] == pytest.approx(best)


@given(st.lists(sentences, max_size=6), sentences, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_a_long_text_is_near_what_contains_it(texts: list[str], text: str, threshold: float) -> None:
    near = NearTexts(
        [(str(i), t) for i, t in enumerate(texts)], shingles=word_trigrams, threshold=threshold, contained_from=3
    )
    own = word_trigrams(text)
    sizes = [len(own) if len(own) >= 3 else len(own | s) for s in map(word_trigrams, texts)]
    shares = [len(own & word_trigrams(t)) / max(size, 1) for t, size in zip(texts, sizes, strict=True)]
    best = max(shares, default=0.0)
    expected = None if best < threshold or best == 0 else (str(shares.index(best)), best)
    assert near.nearest(text) == expected


@pytest.mark.parametrize("form", ["The CAT, sat -- on\tthe mat!", "the cat sat on the mat", "Ｔhe cat sat on the ｍat"])
def test_form_makes_no_difference(form: str) -> None:
    near = NearTexts([("a", "The cat sat on the mat.")], shingles=word_trigrams, threshold=1.0)
    assert near.nearest(form) == ("a", 1.0)


def test_order_makes_a_difference_in_passages_and_none_in_queries() -> None:
    forth, back = "tax on ships in spring", "in spring tax on ships"
    assert word_trigrams(forth) != word_trigrams(back)
    assert content_words(forth) == content_words(back)


def test_texts_without_words_are_near_nothing() -> None:
    for shingles in (word_trigrams, content_words):
        assert NearTexts([("a", "?!")], shingles=shingles, threshold=0.5).nearest("?!") is None
    assert content_words("who are they") == {"who", "are", "they"}  # all of them stop words

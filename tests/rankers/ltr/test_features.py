"""Feature sets: every kind by hand, what is missing, and that the log has what the ranker saw."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rankers.errors import ConfigError, InvalidInputError
from rankers.fusion import reciprocal_rank_fusion
from rankers.ltr.features import FeatureSet, load_feature_set
from rankers.ltr.terms import CollectionStatistics, count_collection, save_statistics
from rankers.pipeline import Stage
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.rankers.build import words

NOW = datetime(2024, 6, 1, tzinfo=UTC)
QUERY = Query("q", "red fox")
FOX = Document("fox", "the quick fox is red", title="A red fox")
DOG = Document("dog", "a lazy dog")


def feature_set(*features: Mapping[str, object], **fields: Any) -> FeatureSet:
    return FeatureSet.model_validate({"name": "test", "version": 1, "features": features, **fields})


def values(ranking: Ranking, /, **feature: object) -> list[float | None]:
    """Values of one feature in the order of the ranking, None where missing."""
    one = feature_set({"name": "x", **feature})
    logged = one.as_logged(ranking, one.extract(ranking, now=NOW))
    return [logged[document_id]["x"] for document_id in ranking.ids]


def given_in_order(*documents: Document) -> Ranking:
    return Ranking.from_order(QUERY, documents)


def test_words_are_counted_in_the_part_that_is_named() -> None:
    ranking = given_in_order(FOX, DOG)
    assert values(ranking, kind="overlap", part="title") == [2.0, None]  # no title: missing, not zero
    assert values(ranking, kind="overlap", part="text") == [2.0, 0.0]
    assert values(ranking, kind="coverage") == [1.0, 0.0]
    assert values(ranking, kind="length", part="title") == [3.0, 0.0]
    assert values(ranking, kind="length", part="text") == [5.0, 3.0]
    assert values(ranking, kind="length", part="query") == [2.0, 2.0]


def test_proximity_is_the_density_of_the_smallest_window() -> None:
    texts = ["red fox", "red big fox", "fox", "dog", "red x x x fox x red"]
    ranking = given_in_order(*(Document(str(i), text) for i, text in enumerate(texts)))
    found = values(ranking, kind="proximity")
    assert found == [1.0, pytest.approx(2 / 3), None, None, pytest.approx(2 / 3)]


def test_bm25_uses_the_collection_where_it_is_known() -> None:
    ranking = given_in_order(FOX, DOG)
    one = feature_set({"name": "x", "kind": "bm25"})
    collection = CollectionStatistics(documents=1000, mean_terms=5.0, frequencies={"red": 10, "fox": 1})
    found = one.extract(ranking, now=NOW, statistics={"content": collection})[:, 0]
    norm = 1.2 * (0.25 + 0.75 * 8 / 5)
    idf = [math.log(1 + (1000 - df + 0.5) / (df + 0.5)) for df in (10, 1)]
    assert found == pytest.approx([sum(weight * 2 / (2 + norm) for weight in idf), 0.0], rel=1e-6)
    assert 0 < one.extract(ranking, now=NOW)[0, 0] < found[0]


def test_bm25_is_of_the_part_and_with_the_parameters_that_are_named(tmp_path: Path) -> None:
    documents = [FOX, DOG, Document("red", "red red red red", title="Red")]
    save_statistics(count_collection(documents, "english"), tmp_path / "terms.json", stemmer="english")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nversion: 2\nstatistics: terms.json\n"
        "features: [{name: t, kind: bm25, part: title, k1: 0.9, b: 0.4}, {name: x, kind: bm25, part: text, b: 0}]\n"
    )
    mine = load_feature_set(tmp_path / "mine.yaml")
    collection = mine.collection()
    assert collection is not None
    # Two of the titles, with 3 and 1 terms, and three of the texts have terms; red is in two of either, fox in one.
    idf = {(n, df): math.log(1 + (n - df + 0.5) / (df + 0.5)) for n, df in ((2, 2), (2, 1), (3, 2), (3, 1))}
    norm = 0.9 * (0.6 + 0.4 * 3 / 2)
    matrix = mine.extract(given_in_order(FOX, DOG), now=NOW, statistics=collection)
    assert matrix[:, 0] == pytest.approx([(idf[2, 2] + idf[2, 1]) / (1 + norm), 0.0], rel=1e-6)
    assert matrix[:, 1] == pytest.approx([(idf[3, 2] + idf[3, 1]) / 2.2, 0.0], rel=1e-6)


def test_statistics_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "terms.json"
    with pytest.raises(ConfigError, match=r"make them with: shortlist index statistics"):
        feature_set({"name": "x", "kind": "bm25"}, statistics=path).collection()
    save_statistics(count_collection([FOX], "german"), path, stemmer="german")
    with pytest.raises(ConfigError, match="made with stemmer 'german', the feature set has 'english'"):
        feature_set({"name": "x", "kind": "bm25"}, statistics=path).collection()
    path.write_text("[]")
    with pytest.raises(ConfigError, match="no file of statistics"):
        feature_set({"name": "x", "kind": "bm25"}, statistics=path).collection()


def test_places_of_earlier_rankings_are_found_through_fusion_and_joined_heads() -> None:
    a, b, c = Document("a", "x"), Document("b", "x"), Document("c", "x")
    lexical = Ranking.from_scores(QUERY, [a, b], [7.0, 3.0], score_kind=ScoreKind.LEXICAL)
    dense = Ranking.from_scores(QUERY, [c, a], [0.9, 0.5], score_kind=ScoreKind.SIMILARITY)
    fused = reciprocal_rank_fusion([lexical, dense])
    assert fused.ids == ("a", "c", "b")

    class Llm:
        def rank(self, rankings: Any) -> list[Ranking]:
            return [
                Ranking.from_scores(
                    one.query, one.documents, [-2.0, -1.0], score_kind=ScoreKind.LOG_PROBABILITY, previous=one
                )
                for one in rankings
            ]

        def cost_tokens(self, ranking: Ranking) -> int:
            return 1

    stage = Stage("llm", Llm(), depth=2)
    joined = stage.rejoin(stage.ranker.rank([stage.head(fused)])[0], fused)
    assert joined.ids == ("c", "a", "b")
    assert values(joined, kind="rank", of="incoming") == [1.0, 2.0, 3.0]
    assert values(joined, kind="score", of="incoming") == [None] * 3  # a joined order has no scores
    assert values(joined, kind="rank", of="first") == [2.0, 1.0, 3.0]
    assert values(joined, kind="rank", of="fusion") == [2.0, 1.0, 3.0]
    assert values(joined, kind="score", of="lexical") == [None, 7.0, 3.0]
    assert values(joined, kind="rank", of="lexical") == [None, 1.0, 2.0]
    assert values(joined, kind="score", of="similarity") == [pytest.approx(0.9), 0.5, None]
    assert values(joined, kind="score", of="log_probability") == [-1.0, -2.0, None]
    assert values(joined, kind="score", of="probability") == [None] * 3


def test_the_callers_numbers_are_taken_by_name_and_what_is_no_number_is_missing() -> None:
    numbers = [{"price": 3.5}, {}, {"price": math.nan}, {"price": math.inf}, {"price": 1e300}]
    ranking = given_in_order(*(Document(str(i), "x", features=sent) for i, sent in enumerate(numbers)))
    assert values(ranking, kind="caller", key="price") == [3.5, None, None, None, None]
    assert values(ranking, kind="caller") == [None] * 5


def test_freshness_halves_with_the_half_life() -> None:
    at_noon_elsewhere = (NOW - timedelta(days=10)).astimezone(timezone(timedelta(hours=5)))
    dates: list[object] = [
        "2024-05-22",
        at_noon_elsewhere.isoformat(),
        at_noon_elsewhere,
        at_noon_elsewhere.timestamp(),
        (NOW - timedelta(days=20)).date(),
        "2030-01-01",
        "yesterday",
        True,
        1e99,
        None,
    ]
    ranking = given_in_order(*(Document(str(i), "x", metadata={"date": date}) for i, date in enumerate(dates)))
    expected = [0.5, 0.5, 0.5, 0.5, 0.25, 1.0, None, None, None, None]
    assert values(ranking, kind="freshness", key="date", half_life_days=10) == expected


def encode(query: Query, documents: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Vectors of three numbers, those of the fox close to the query's."""
    near, far = [0.6, 0.8, 0.0], [0.0, 0.6, -0.8]
    vectors = [near if document.id == "fox" else far for document in documents]
    return np.array([1.0, 0.0, 0.0], dtype=np.float32), np.array(vectors, dtype=np.float32)


def test_cosines_come_from_the_sets_encoder_or_are_missing() -> None:
    one = feature_set({"name": "x", "kind": "cosine"})
    ranking = given_in_order(DOG, FOX)
    assert one.extract(ranking, now=NOW, encode=encode)[:, 0] == pytest.approx([0.0, 0.6])
    assert np.isnan(one.extract(ranking, now=NOW)).all()


def test_pair_encodings_are_sums_of_products_and_of_differences() -> None:
    one = feature_set(
        {"name": "x", "kind": "pair_encoding", "groups": 2}, {"name": "n", "kind": "length", "part": "text"}
    )
    assert one.names == ("x.product0", "x.product1", "x.difference0", "x.difference1", "n")
    ranking = given_in_order(DOG, FOX)
    matrix = one.extract(ranking, now=NOW, encode=encode)
    # Dimensions 0 | 1 2: |1 - 0| | .6 + .8 for the dog, |1 - .6| | .8 for the fox.
    assert matrix == pytest.approx(np.array([[0, 0, 1, 1.4, 3], [0.6, 0, 0.4, 0.8, 5]]))
    assert one.from_log(one.as_logged(ranking, matrix)["fox"]).tobytes() == matrix[1].tobytes()
    missing = one.extract(ranking, now=NOW)
    assert np.isnan(missing[:, :4]).all()
    assert missing[:, 4].tolist() == [3, 5]
    assert one.extract(given_in_order(), now=NOW, encode=encode).shape == (0, 5)
    with pytest.raises(ConfigError, match="has 4 groups, the encoder's vectors have 3 numbers"):
        feature_set({"name": "x", "kind": "pair_encoding", "groups": 4}).extract(ranking, now=NOW, encode=encode)
    with pytest.raises(ValidationError, match=r"'x\.product0' occurs twice"):
        feature_set({"name": "x", "kind": "pair_encoding"}, {"name": "x.product0", "kind": "cosine"})


def test_an_empty_list_and_an_empty_query_have_features_too() -> None:
    default = load_feature_set("default")
    assert default.extract(given_in_order(), now=NOW).shape == (0, len(default.names))
    ranking = Ranking.from_order(Query("q", "?!"), [FOX])
    logged = default.as_logged(ranking, default.extract(ranking, now=NOW))
    assert logged["fox"]["coverage"] is None
    assert logged["fox"]["bm25"] == 0.0


documents = st.lists(
    st.builds(
        Document,
        id=st.uuids().map(str),
        text=st.lists(words, max_size=12).map(" ".join),
        title=st.lists(words, max_size=3).map(" ".join),
        features=st.dictionaries(st.sampled_from(["price", "age"]), st.floats(width=64)),
        metadata=st.fixed_dictionaries({}, optional={"date": st.datetimes().map(datetime.isoformat)}),
    ),
    max_size=6,
    unique_by=lambda document: document.id,
)


@given(documents, st.lists(words, max_size=4).map(" ".join), st.randoms())
def test_a_replay_and_the_log_have_the_bits_that_were_served(found: list[Document], text: str, random: Any) -> None:
    price = {"name": "price", "kind": "caller"}
    default = load_feature_set("default")
    both = FeatureSet.model_validate({**default.model_dump(), "features": [*default.model_dump()["features"], price]})
    scores = [random.gauss(0, 3) for _ in found]
    ranking = Ranking.from_scores(Query("q", text), found, scores, score_kind=ScoreKind.LEXICAL)
    served = both.extract(ranking, now=NOW)
    assert served.dtype == np.float32
    assert not np.isinf(served).any()
    assert both.extract(ranking, now=NOW).tobytes() == served.tobytes()
    sent = json.loads(json.dumps(both.as_logged(ranking, served), allow_nan=False))
    for row, document_id in enumerate(ranking.ids):
        assert np.array_equal(both.from_log(sent[document_id]), served[row], equal_nan=True)


@given(documents)
def test_features_of_a_document_do_not_depend_on_where_it_stands(found: list[Document]) -> None:
    by_words = feature_set(
        *({"name": kind, "kind": kind} for kind in ("bm25", "coverage", "proximity")),
        {"name": "overlap", "kind": "overlap", "part": "text"},
    )
    there, back = Ranking.from_order(QUERY, found), Ranking.from_order(QUERY, found[::-1])
    one, other = (by_words.extract(ranking, now=NOW) for ranking in (there, back))
    assert np.allclose(one, other[::-1], rtol=1e-6, equal_nan=True)


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no time zone"):
        load_feature_set("default").extract(given_in_order(FOX), now=NOW.replace(tzinfo=None))


def test_features_of_a_ranking_cut_short_are_those_of_its_head() -> None:
    lexical = Ranking.from_scores(QUERY, [FOX, DOG], [2.0, 1.0], score_kind=ScoreKind.LEXICAL)
    assert values(replace(lexical, previous=lexical).top(1), kind="score", of="lexical") == [2.0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": []}, "features: .*at least 1"),
        ({"features": [{"name": "x", "kind": "bm25"}, {"name": "x", "kind": "coverage"}]}, "'x' occurs twice"),
        ({"features": [{"name": "x", "kind": "colour"}]}, r"features\.0"),
        ({"features": [{"name": "x", "kind": "rank", "of": "last"}]}, r"features\.0\.rank\.of"),
        ({"features": [{"name": "X y", "kind": "bm25"}]}, r"features\.0\.bm25\.name"),
        ({"version": 0}, "version"),
        ({"stemmer": "klingon"}, "no stemmer 'klingon'"),
        ({"edition": 1}, "edition"),
    ],
)
def test_a_wrong_set_is_refused_by_name(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    path = tmp_path / "mine.yaml"
    entry = {"name": "mine", "version": 1, "features": [{"name": "x", "kind": "bm25"}], **changed}
    path.write_text(yaml.safe_dump(entry))
    with pytest.raises(ConfigError, match=message):
        load_feature_set(path)


def test_a_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no feature set 'mine'.*default"):
        load_feature_set("mine")
    (tmp_path / "mine.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_feature_set(tmp_path / "mine.yaml")

"""Cross-encoders through sentence-transformers. The head is random but seeded: scores mean nothing, and are exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from rankers.errors import ConfigError
from rankers.pointwise import CrossEncoderScorer, PointwiseRanker
from rankers.protocols import Ranker, Scorer
from rankers.types import Document, PairScores, Query, Ranking, Reading, ScoreKind
from tests.rankers.build import QUERY, documents

PAIRS = [
    (Query("q1", "who tamed dogs"), Document("a", "Dogs were tamed by hunters.")),
    (Query("q1", "who tamed dogs"), Document("b", "Steel. " * 30, title="Tariffs")),
    (Query("q2", "steel"), Document("a", "Dogs were tamed by hunters.")),
    (Query("q2", "steel"), Document("c", "")),
]


@pytest.fixture(scope="module")
def folder(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("cross-encoder")
    CrossEncoder(minilm, num_labels=1, device="cpu").save_pretrained(str(path))
    return str(path)


@pytest.fixture(scope="module")
def scorer(folder: str) -> CrossEncoderScorer:
    return CrossEncoderScorer(folder, device="cpu", max_tokens=64, max_batch_tokens=200)


def test_scores_are_the_logits_of_sentence_transformers(folder: str, scorer: CrossEncoderScorer) -> None:
    plain = CrossEncoder(folder, device="cpu", max_length=64)
    texts = [(query.text, document.content) for query, document in PAIRS]
    expected = plain.predict(texts, activation_fn=torch.nn.Identity())
    found = scorer.score(PAIRS)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert found.scores.dtype == np.float64
    assert scorer.score_kind is ScoreKind.LOGIT


def test_a_batch_gives_what_each_pair_gives_alone(scorer: CrossEncoderScorer) -> None:
    together = scorer.score(PAIRS)
    for i, pair in enumerate(PAIRS):
        alone = scorer.score([pair])
        assert alone.scores[0] == pytest.approx(together.scores[i], abs=1e-5)
        assert alone.readings[0] == together.readings[i]


def test_a_document_that_does_not_fit_is_cut_and_reported(scorer: CrossEncoderScorer) -> None:
    query, tokens = Query("q", "steel"), 200
    (reading,) = scorer.score([(query, Document("a", "steel " * tokens))]).readings
    # [CLS] steel [SEP] ... [SEP]
    assert reading == Reading(tokens_used=64 - 4, tokens_total=tokens)
    (whole,) = scorer.score([(query, Document("a", "steel " * 10))]).readings
    assert whole == Reading(10, 10)


def test_what_is_cut_off_does_not_count(scorer: CrossEncoderScorer) -> None:
    query = Query("q", "steel")
    first, second = scorer.score(
        [(query, Document("a", "steel " * 100 + "dogs")), (query, Document("b", "steel " * 100 + "cats"))]
    ).scores
    assert first == pytest.approx(second, abs=1e-6)


def test_the_ranker_sorts_each_ranking_by_score(scorer: CrossEncoderScorer) -> None:
    first, empty, second = (
        Ranking.from_order(query, [document for _, document in pairs])
        for query, pairs in ((PAIRS[0][0], PAIRS[:2]), (QUERY, []), (PAIRS[2][0], PAIRS[2:]))
    )
    scores = scorer.score(PAIRS).scores.tolist()
    results = PointwiseRanker(scorer).rank([first, empty, second])
    assert [list(result.scores) for result in results] == [
        pytest.approx(sorted(scores[:2], reverse=True), abs=1e-5),
        [],
        pytest.approx(sorted(scores[2:], reverse=True), abs=1e-5),
    ]
    for result, ranking in zip(results, (first, empty, second), strict=True):
        assert set(result.ids) == set(ranking.ids) == set(result.evidence.readings)
        assert result.previous is ranking
        assert result.score_kind is ScoreKind.LOGIT


def test_the_models_own_limit_wins_over_a_larger_one(folder: str) -> None:
    assert CrossEncoderScorer(folder, device="cpu", max_tokens=100_000).max_tokens == 512


def test_models_that_are_no_scorers_are_refused(minilm: str, tmp_path: Path) -> None:
    CrossEncoder(minilm, num_labels=3, device="cpu").save_pretrained(str(tmp_path / "three"))
    with pytest.raises(ConfigError, match="gives 3 numbers per pair, a scorer needs 1"):
        CrossEncoderScorer(str(tmp_path / "three"), device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="cannot load"):
        CrossEncoderScorer(str(tmp_path / "empty"), device="cpu")
    with pytest.raises(ConfigError, match="max_tokens is 3"):
        CrossEncoderScorer(minilm, device="cpu", max_tokens=3)


class Length:
    """Scores a document by the length of its text."""

    score_kind = ScoreKind.LEXICAL

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        lengths = [len(document.text) for _, document in pairs]
        return PairScores(np.array(lengths, dtype=np.float64), tuple(Reading(n, n) for n in lengths), tuple(lengths))


def test_any_scorer_makes_a_ranker() -> None:
    assert isinstance(Length(), Scorer)
    ranker = PointwiseRanker(Length(), max_pair_tokens=6)
    assert isinstance(ranker, Ranker)
    (result,) = ranker.rank([Ranking.from_order(QUERY, [Document("s", "x"), Document("l", "xyz")])])
    assert result.ids == ("l", "s")
    assert result.evidence.tokens == 4
    assert ranker.rank([]) == []


def test_the_estimate_is_bounded_for_each_pair() -> None:
    ranking = Ranking.from_order(Query("q", "abc"), [Document("short", "abcdef"), Document("long", "x" * 1000)])
    assert PointwiseRanker(Length(), max_pair_tokens=50).cost_tokens(ranking) == 3 + 50
    assert PointwiseRanker(Length()).cost_tokens(Ranking.from_order(QUERY, documents(0))) == 0

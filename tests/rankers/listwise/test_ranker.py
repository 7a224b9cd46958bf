"""The listwise ranker, with a model that knows the answer and with real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankers.errors import ConfigError, TooLargeError, WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.strategies.single import Single
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.windows import Plan, Signal, Verdict, Window, WindowOutcome
from rankers.llm.transformers_engine import TransformersEngine
from rankers.protocols import Ranker, TokenIds
from rankers.types import Document, Evidence, Query, Ranking, Reading, ScoreKind
from tests.rankers.build import QUERY
from tests.rankers.listwise.oracle import OracleModel
from tests.rankers.models import tiny_engine


def candidates(worth: Sequence[int], *, query: Query = QUERY) -> Ranking:
    """Rank documents d0, d1, ... in this order, with scores of a first stage; each text ends in what it is worth."""
    documents = [Document(f"d{i}", f"worth {value}", title="A title") for i, value in enumerate(worth)]
    scores = [100.0 - i for i in range(len(documents))]
    return Ranking.from_scores(query, documents, scores, score_kind=ScoreKind.LEXICAL)


def best_first(worth: Sequence[int]) -> list[str]:
    return [f"d{i}" for i in sorted(range(len(worth)), key=lambda i: -worth[i])]


permutations = st.integers(0, 45).flatmap(lambda count: st.permutations(range(count)))


@settings(max_examples=40)
@given(st.lists(permutations, max_size=4))
def test_sliding_windows_find_the_best_of_every_ranking_in_a_batch(batch: list[list[int]]) -> None:
    rankings = [candidates(worth, query=Query(f"q{i}", f"query {i}")) for i, worth in enumerate(batch)]
    results = ListwiseRanker(OracleModel()).rank(rankings)
    assert len(results) == len(rankings)
    for ranking, result, worth in zip(rankings, results, batch, strict=True):
        assert list(result.ids[:10]) == best_first(worth)[:10]
        assert sorted(result.ids) == sorted(ranking.ids)
        assert result.query is ranking.query
        assert result.previous is ranking


@settings(max_examples=20)
@given(st.lists(permutations, min_size=1, max_size=4))
def test_a_batch_gives_what_each_ranking_gives_alone(batch: list[list[int]]) -> None:
    ranker = ListwiseRanker(OracleModel(), strategy=Sliding(size=6, stride=4))
    rankings = [candidates(worth) for worth in batch]
    assert ranker.rank(rankings) == [ranker.rank([ranking])[0] for ranking in rankings]


def test_windows_that_are_ready_together_are_read_together() -> None:
    model = OracleModel()
    ListwiseRanker(model, strategy=Sliding(size=4, stride=2)).rank(
        [candidates(range(8)), candidates([1]), candidates(range(4)), candidates(range(6))]
    )
    # 8 documents take three windows, 4 take one, 6 take two: rounds of 3, 2 and 1.
    assert model.prompts_per_call == [3, 2, 1]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_documents_come_back_as_they_are_without_the_model(count: int) -> None:
    model = OracleModel()
    ranking = candidates(range(count))
    (result,) = ListwiseRanker(model).rank([ranking])
    assert model.prompts_per_call == []
    assert (result.items, result.score_kind, result.previous) == (ranking.items, ranking.score_kind, ranking)
    assert ListwiseRanker(model).cost_tokens(ranking) == 0


def test_one_window_gives_log_probabilities() -> None:
    (result,) = ListwiseRanker(OracleModel(), strategy=Single()).rank([candidates([1, 3, 2])])
    total = math.log(sum(math.exp(worth) for worth in (1, 3, 2)))
    assert result.ids == ("d1", "d2", "d0")
    assert result.scores == pytest.approx((3 - total, 2 - total, 1 - total))
    assert result.score_kind is ScoreKind.LOG_PROBABILITY


def test_several_windows_give_an_order_and_no_score() -> None:
    (result,) = ListwiseRanker(OracleModel()).rank([candidates(range(21))])
    assert result.score_kind is ScoreKind.RANK
    assert result.scores[:3] == (1.0, 1 / 2, 1 / 3)


@given(permutations)
def test_scores_of_the_first_stage_stay_with_their_documents(worth: list[int]) -> None:
    ranking = candidates(worth)
    before = {item.document.id: (item.score, item.rank) for item in ranking.items}
    (result,) = ListwiseRanker(OracleModel()).rank([ranking])
    assert result.previous is ranking
    assert {item.document.id: (item.score, item.rank) for item in ranking.items} == before
    assert ranking.score_kind is ScoreKind.LEXICAL


@pytest.mark.parametrize("count", [5, 30])
def test_equal_logits_keep_the_incoming_order(count: int) -> None:
    (result,) = ListwiseRanker(OracleModel(answer=0.5)).rank([candidates(range(count))])
    assert result.ids == tuple(f"d{i}" for i in range(count))


def test_the_evidence_holds_every_window_as_it_was_shown() -> None:
    ranker = ListwiseRanker(OracleModel(), strategy=Sliding(size=3, stride=2), passage_tokens=16)
    (result,) = ranker.rank([candidates([1, 2, 30])])
    (window,) = result.evidence.windows
    assert window.document_ids == ("d0", "d1", "d2")
    assert window.logits == (1.0, 2.0, 3.0)  # " A title worth 30" is cut after 16 characters
    assert result.evidence.readings["d2"] == Reading(tokens_used=16, tokens_total=17)
    assert not result.evidence.readings["d0"].truncated


def test_each_passage_is_encoded_once_however_many_windows_show_it() -> None:
    model = OracleModel()
    ranker = ListwiseRanker(model, strategy=Sliding(size=4, stride=1))
    model.encoded.clear()
    ranker.rank([candidates(range(12)), candidates(range(12), query=Query("q2", "another"))])
    passages = [text for text in model.encoded if "worth" in text]
    assert len(passages) == len(set(passages)) == 12


def test_the_tokens_counted_are_those_of_the_prompts() -> None:
    lengths: list[int] = []

    class Counting(FirstTokenReader):
        def read(
            self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet
        ) -> list[WindowOutcome]:
            lengths.extend(map(len, prompts))
            return super().read(prompts, windows, labels=labels)

    model = OracleModel()
    ranker = ListwiseRanker(model, strategy=Sliding(size=4, stride=2), reader=Counting(model))
    (result,) = ranker.rank([candidates(range(7))])
    assert len(lengths) == 3
    assert result.evidence.tokens == sum(lengths)


def test_the_estimate_encodes_nothing_and_is_near_for_english(smollm2_ranker: ListwiseRanker) -> None:
    model = OracleModel()
    ranker = ListwiseRanker(model)
    ranking = candidates(range(30))
    ranker.cost_tokens(ranking)
    model.encoded.clear()
    assert ranker.cost_tokens(ranking) > 0
    assert model.encoded == []

    text = "The court held that the contract was void because neither party had read the terms. "
    english = Ranking.from_order(QUERY, [Document(str(i), text * (1 + i % 2)) for i in range(3)])
    (result,) = smollm2_ranker.rank([english])
    assert result.evidence.tokens <= smollm2_ranker.cost_tokens(english) <= 1.5 * result.evidence.tokens


@pytest.fixture(scope="module")
def smollm2_ranker(smollm2_engine: TransformersEngine) -> ListwiseRanker:
    return ListwiseRanker(smollm2_engine, passage_tokens=60)


def test_smollm2_reads_every_window_once_and_scores_are_its_logits(smollm2_ranker: ListwiseRanker) -> None:
    documents = [
        Document("cats", "Cats sleep for most of the day."),
        Document("tax", "The tax on imported steel rose in 2018.", title="Tariffs"),
        Document("dogs", "Dogs were the first animals to be tamed."),
    ]
    ranking = Ranking.from_order(Query("q", "which animal was tamed first"), documents)
    (result,) = smollm2_ranker.rank([ranking])
    (window,) = result.evidence.windows
    logits = np.array(window.logits)
    assert np.exp(result.scores).sum() == pytest.approx(1.0)
    assert result.ids == tuple(window.document_ids[i] for i in np.argsort(-logits))
    assert not any(reading.truncated for reading in result.evidence.readings.values())


def test_a_text_of_a_megabyte_is_cut_and_reported() -> None:
    long = Document("long", "word " * 200_000)
    ranker = ListwiseRanker(tiny_engine(max_position_embeddings=2048), strategy=Sliding(size=4, stride=2))
    (result,) = ranker.rank([Ranking.from_order(QUERY, [long, Document("short", "x"), Document("empty", "")])])
    assert result.evidence.readings["long"].tokens_used == 100
    assert result.evidence.readings["long"].tokens_total > 200_000
    assert not result.evidence.readings["short"].truncated
    assert len(result) == 3


def test_a_window_that_does_not_fit_is_refused_when_the_ranker_is_built() -> None:
    with pytest.raises(ConfigError, match="windows of 53 need 53 labels, there are 52"):
        ListwiseRanker(OracleModel(), strategy=Sliding(size=53))
    with pytest.raises(ConfigError, match=r"20 passages of 100 tokens make a prompt of .* the model reads 2048"):
        ListwiseRanker(OracleModel(context_tokens=2048))


def test_more_documents_than_one_window_can_show_are_too_large() -> None:
    with pytest.raises(TooLargeError, match="60 documents in one window, but there are 52 labels") as raised:
        ListwiseRanker(OracleModel(), strategy=Single()).rank([candidates(range(60))])
    assert raised.value.field == "documents"


def test_windows_that_all_fail_are_an_error() -> None:
    with pytest.raises(WorkerError, match="not a number"):
        ListwiseRanker(OracleModel(answer=math.nan)).rank([candidates(range(3))])


@dataclass(frozen=True)
class Forgetful:
    """A strategy that loses a candidate."""

    window_size: int = 2
    needs: Signal = Signal.BEST

    def plan(self, count: int) -> Plan:
        yield []
        return Verdict(range(count - 1))


def test_a_strategy_that_loses_a_candidate_is_an_error() -> None:
    with pytest.raises(WorkerError, match="order of 3 candidates"):
        ListwiseRanker(OracleModel(), strategy=Forgetful()).rank([candidates(range(3))])


def test_it_is_a_ranker() -> None:
    ranker = ListwiseRanker(OracleModel())
    assert isinstance(ranker, Ranker)
    assert ranker.rank([]) == []
    assert ranker.rank([candidates([1])])[0].evidence == Evidence()

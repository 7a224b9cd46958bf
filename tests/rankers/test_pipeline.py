"""Pipelines: what each stage sees, what is joined below it, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import ConfigError, InvalidInputError
from rankers.pipeline import INTERLEAVE, RETRIEVE, Pipeline, Stage
from rankers.protocols import Ranker, Retriever
from rankers.types import Query, Ranking, ScoreKind
from tests.rankers.build import QUERY, documents


@dataclass
class Shelf:
    """Finds the same documents for every query, and remembers how many were wanted."""

    size: int = 10
    wanted: list[int] = field(default_factory=list)

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        self.wanted.append(k)
        found = documents(self.size)[:k]
        scores = [float(-i) for i in range(len(found))]
        return [Ranking.from_scores(query, found, scores, score_kind=ScoreKind.LEXICAL) for query in queries]


@dataclass
class Reverse:
    """Turns every ranking around, and remembers how long each was."""

    seen: list[list[int]] = field(default_factory=list)

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        self.seen.append([len(ranking) for ranking in rankings])
        return [
            Ranking.from_scores(r.query, r.documents, list(range(len(r))), score_kind=ScoreKind.LOGIT, previous=r)
            for r in rankings
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        return len(ranking)


def test_the_parts_are_what_the_protocols_ask_for() -> None:
    assert isinstance(Shelf(), Retriever)
    assert isinstance(Reverse(), Ranker)
    assert isinstance(Pipeline("p", Shelf()), Retriever)


@given(st.integers(0, 9), st.integers(1, 12), st.integers(1, 12))
def test_a_stage_reorders_its_depth_and_leaves_the_rest_below(size: int, depth: int, k: int) -> None:
    shelf, reverse = Shelf(size), Reverse()
    (result,) = Pipeline("p", shelf, (Stage("reverse", reverse, depth),)).run([QUERY], k)
    ids = [document.id for document in documents(size)][: max(k, depth)]
    assert list(result.ranking.ids) == (ids[:depth][::-1] + ids[depth:])[:k]
    assert shelf.wanted == [max(k, depth)]
    assert reverse.seen == [[min(depth, len(ids))]]


def test_the_whole_list_keeps_the_scores_of_its_ranker() -> None:
    (result,) = Pipeline("p", Shelf(3), (Stage("reverse", Reverse(), 5),)).run([QUERY], 3)
    assert result.ranking.score_kind is ScoreKind.LOGIT
    assert result.ranking.scores == (2.0, 1.0, 0.0)


def test_a_joined_list_has_ranks_for_scores_and_keeps_what_came_in() -> None:
    (result,) = Pipeline("p", Shelf(4), (Stage("reverse", Reverse(), 2),)).run([QUERY], 4)
    assert result.ranking.ids == ("d1", "d0", "d2", "d3")
    assert result.ranking.score_kind is ScoreKind.RANK
    assert result.ranking.previous is not None
    assert result.ranking.previous.scores == (0.0, -1.0, -2.0, -3.0)


def test_every_step_is_reported_with_its_time() -> None:
    stages = (Stage("one", Reverse(), 4), Stage("two", Reverse(), 2))
    results = Pipeline("p", Shelf(4), stages).run([QUERY, Query("q2", "other")], 3)
    for result in results:
        assert [stage.name for stage in result.stages] == [RETRIEVE, "one", "two"]
        assert [stage.ranking.ids for stage in result.stages] == [
            ("d0", "d1", "d2", "d3"),
            ("d3", "d2", "d1", "d0"),
            ("d2", "d3", "d1", "d0"),
        ]
        assert result.ranking.ids == ("d2", "d3", "d1")
        assert all(stage.seconds >= 0 for stage in result.stages)
    assert [result.ranking.query.id for result in results] == ["q1", "q2"]


def test_rerank_takes_rankings_made_elsewhere() -> None:
    pipeline = Pipeline("p", stages=(Stage("reverse", Reverse(), 2),))
    (result,) = pipeline.rerank([Ranking.from_order(QUERY, documents(3))])
    assert result.ranking.ids == ("d1", "d0", "d2")
    assert [stage.name for stage in result.stages] == ["reverse"]
    assert pipeline.rerank([]) == []


def test_retrieve_gives_the_final_rankings() -> None:
    assert [ranking.ids for ranking in Pipeline("p", Shelf()).retrieve([QUERY], 2)] == [("d0", "d1")]


def test_what_a_pipeline_lacks_is_named() -> None:
    with pytest.raises(InvalidInputError, match="no retriever"):
        Pipeline("p", stages=(Stage("s", Reverse(), 1),)).run([QUERY], 1)
    with pytest.raises(InvalidInputError, match="no stages"):
        Pipeline("p", Shelf()).rerank([])
    with pytest.raises(InvalidInputError, match="k is 0"):
        Pipeline("p", Shelf()).run([QUERY], 0)


def test_a_wrong_pipeline_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a retriever nor a stage"):
        Pipeline("p")
    with pytest.raises(ConfigError, match="depth 0"):
        Pipeline("p", Shelf(), (Stage("s", Reverse(), 0),))
    for names in (("s", "s"), (RETRIEVE,)):
        with pytest.raises(ConfigError, match="unique"):
            Pipeline("p", Shelf(), tuple(Stage(name, Reverse(), 1) for name in names))


def test_the_head_of_a_joined_list_is_kept_with_its_scores() -> None:
    (result,) = Pipeline("p", Shelf(4), (Stage("reverse", Reverse(), 2),)).run([QUERY], 4)
    (head,) = result.ranking.parts
    assert (head.ids, head.scores) == (("d1", "d0"), (1.0, 0.0))
    assert [ranking.score_kind for ranking in result.ranking.history()] == [
        ScoreKind.RANK,
        ScoreKind.LOGIT,
        ScoreKind.LEXICAL,
    ]


def two_arms() -> Pipeline:
    stage = Stage("reverse", Reverse(), 9, model="reverse@v1")
    return Pipeline("ab", arms=(Pipeline("a", Shelf(4)), Pipeline("b", Shelf(4), (stage,))))


def test_two_arms_take_turns_at_their_best_documents() -> None:
    pipeline = two_arms()
    queries = [Query(str(number), "?") for number in range(20)]
    results = pipeline.run(queries, 3)
    for result in results:
        best = {"a": ["d0", "d1", "d2", "d3"], "b": ["d3", "d2", "d1", "d0"]}
        shown: list[str] = []
        for document_id, arm in zip(result.ranking.ids, result.arms, strict=True):
            assert document_id == next(i for i in best[arm] if i not in shown)
            shown.append(document_id)
        assert [stage.name for stage in result.stages] == ["a/retrieve", "b/retrieve", "b/reverse", INTERLEAVE]
        assert result.stages[-1].ranking == result.ranking
        assert len(result.ranking) == 3
    assert {result.arms[0] for result in results} == {"a", "b"}
    assert [result.ranking for result in pipeline.run(queries, 3)] == [result.ranking for result in results]
    assert (pipeline.searches, pipeline.reranks, pipeline.models) == (True, False, {"b/reverse": "reverse@v1"})


def test_two_arms_rerank_what_they_are_given() -> None:
    stages = [Stage("reverse", Reverse(), depth) for depth in (3, 2)]
    pipeline = Pipeline("ab", arms=(Pipeline("a", stages=(stages[0],)), Pipeline("b", stages=(stages[1],))))
    (result,) = pipeline.rerank([Ranking.from_order(QUERY, documents(3))])
    assert sorted(result.ranking.ids) == ["d0", "d1", "d2"]
    assert result.ranking.ids[0] in {"d2", "d1"}
    assert (pipeline.searches, pipeline.reranks) == (False, True)


def test_arms_that_cannot_be_interleaved_are_refused() -> None:
    a, b = Pipeline("a", Shelf()), Pipeline("b", Shelf())
    for arms in ((a,), (a, a), (a, two_arms())):
        with pytest.raises(ConfigError, match="needs two pipelines that are not interleaved themselves"):
            Pipeline("ab", arms=arms)
    with pytest.raises(ConfigError, match="neither a retriever nor stages of its own"):
        Pipeline("ab", Shelf(), arms=(a, b))
    with pytest.raises(InvalidInputError, match="no stages"):
        two_arms().rerank([])

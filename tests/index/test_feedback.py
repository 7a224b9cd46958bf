"""Losses equal their formulas, the query vector learns, and retrieval finds what the teacher points at."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from index.corpus import Corpus
from index.dense import DenseIndex
from index.directory import IndexDirectory
from index.encoders import Encoder
from index.feedback import FeedbackRetriever, Vector, kl_loss, move_query, ranknet_loss
from index.pipelines import load_pipelines
from index.retrievers import DenseRetriever
from rankers.errors import ConfigError, InvalidInputError
from rankers.pipeline import Pipeline, Stage
from rankers.protocols import Ranker
from rankers.registry import ModelCard, ModelRegistry
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.index.documents import unit_vectors
from tests.training.lists import write_tiny_bert

DIMENSIONS = 16
score_lists = st.integers(2, 8).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(-30, 30)))


def numeric_gradient(function: Callable[[Vector], float], at: Vector) -> Vector:
    steps = 1e-5 * np.eye(len(at))
    return np.array([(function(at + step) - function(at - step)) / 2e-5 for step in steps])


@given(score_lists)
def test_ranknet_is_its_formula(scores: Vector) -> None:
    count = len(scores)
    pairs = [
        np.logaddexp(0, scores[j - 1] - scores[i - 1]) / (i + j)
        for i in range(1, count + 1)
        for j in range(i + 1, count + 1)
    ]
    value, gradient = ranknet_loss(scores)
    assert value == pytest.approx(np.mean(pairs))
    np.testing.assert_allclose(gradient, numeric_gradient(lambda s: ranknet_loss(s)[0], scores), atol=1e-6)


@given(score_lists, st.data(), st.sampled_from([0.05, 1.0, 3.0]))
def test_kl_is_that_of_torch(scores: Vector, data: st.DataObject, temperature: float) -> None:
    teacher = data.draw(arrays(np.float64, len(scores), elements=st.floats(-30, 30)))
    loss = kl_loss(teacher, temperature=temperature)
    student = torch.tensor(scores, requires_grad=True)
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(student / temperature, -1),
        torch.log_softmax(torch.tensor(teacher), -1),
        reduction="sum",
        log_target=True,
    )
    (expected_gradient,) = torch.autograd.grad(expected, student)
    value, gradient = loss(scores)
    assert value == pytest.approx(expected.item(), abs=1e-9)
    np.testing.assert_allclose(gradient, expected_gradient.numpy(), atol=1e-9)


def test_extreme_scores_give_numbers() -> None:
    scores = np.array([1e6, -1e6, 0.0])
    for loss in (ranknet_loss, kl_loss([-1e6, 1e6, 0.0]), kl_loss([0.0, -np.inf, 1.0])):
        value, gradient = loss(scores)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_the_query_moves_as_by_adam_of_torch() -> None:
    vectors = unit_vectors(11, DIMENSIONS, clusters=2, seed=0)
    query, passages = vectors[0], vectors[1:]
    teacher = np.linspace(3, -3, 10)
    student = torch.tensor(query, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([student], lr=5e-3)
    target = torch.softmax(torch.tensor(teacher), -1)
    for _ in range(30):
        optimizer.zero_grad()
        scores = torch.tensor(passages, dtype=torch.float64) @ student
        torch.nn.functional.kl_div(torch.log_softmax(scores, -1), target, reduction="sum").backward()
        optimizer.step()
    moved = move_query(query, passages, kl_loss(teacher), steps=30, learning_rate=5e-3)
    np.testing.assert_allclose(moved, student.detach().numpy(), atol=1e-6)


class FixedEncoder(Encoder):
    """Has a vector for each query text."""

    def __init__(self, vectors: dict[str, npt.NDArray[np.float32]]) -> None:
        self.dimensions = DIMENSIONS
        self.fixed = vectors
        self.embedded: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([self.fixed[text] for text in texts], np.float32).reshape(-1, DIMENSIONS)

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.embedded += texts
        return np.array([self.fixed[text] for text in texts], np.float32).reshape(-1, DIMENSIONS)


class Prefers:
    """Puts the documents nearest to a vector first, as a reranker that knows better."""

    def __init__(self, goal: Vector, index: DenseIndex, kind: ScoreKind | None = None) -> None:
        self.goal, self.index, self.kind = goal, index, kind
        self.shown: list[int] = []

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        self.shown += [len(ranking) for ranking in rankings]
        return [self._rank(ranking) for ranking in rankings]

    def _rank(self, ranking: Ranking) -> Ranking:
        scores = 10 * (self.index.vectors(ranking.ids) @ self.goal)
        ordered = Ranking.from_scores(ranking.query, ranking.documents, scores, score_kind=self.kind or ScoreKind.LOGIT)
        return ordered if self.kind else Ranking.from_order(ranking.query, ordered.documents, previous=ranking)

    def cost_tokens(self, ranking: Ranking) -> int:
        return 0


@pytest.fixture(params=["flat", "hnsw"])
def dense(request: pytest.FixtureRequest, tmp_path: Path) -> DenseRetriever:
    vectors = unit_vectors(200, DIMENSIONS, clusters=4, seed=1)
    documents = [Document(f"d{i}", f"text {i}") for i in range(200)]
    index = DenseIndex.build(vectors, [document.id for document in documents], request.param)
    corpus = Corpus(tmp_path / "corpus.sqlite")
    corpus.append(documents)
    encoder = FixedEncoder({"q": (vectors[0] + vectors[1]) / 2, **{f"text {i}": v for i, v in enumerate(vectors)}})
    return DenseRetriever(index, encoder, corpus)


def goal_and_index(dense: DenseRetriever) -> tuple[Vector, DenseIndex]:
    """Give a direction between the query's and another one, and the index."""
    assert isinstance(dense.index, DenseIndex)
    query = dense.encoder.encode_queries(["q"])[0].astype(np.float64)
    return query + 0.7 * dense.index.vectors(["d7"])[0], dense.index


@pytest.mark.parametrize("role", ["by_scores", "by_order"])
def test_what_the_teacher_prefers_is_found(dense: DenseRetriever, role: str) -> None:
    goal, index = goal_and_index(dense)
    teacher = Prefers(goal, index, ScoreKind.LOGIT if role == "by_scores" else None)
    stage = Stage("teacher", teacher, 60)
    feedback = FeedbackRetriever(dense, **{role: stage})  # type: ignore[arg-type]
    (before,), (after,) = (retriever.retrieve([Query("1", "q")], 20) for retriever in (dense, feedback))
    assert (index.vectors(after.ids) @ goal).mean() > (index.vectors(before.ids) @ goal).mean()
    assert (len(after), teacher.shown) == (20, [60])
    assert after.score_kind is ScoreKind.SIMILARITY


def test_the_order_is_taught_after_the_scores(dense: DenseRetriever) -> None:
    goal, index = goal_and_index(dense)
    scores, order = Prefers(goal, index, ScoreKind.LOGIT), Prefers(goal, index)
    feedback = FeedbackRetriever(dense, by_scores=Stage("a", scores, 30), by_order=Stage("b", order, 10))
    rankings = feedback.retrieve([Query("1", "q"), Query("2", "q")], 5)
    assert (scores.shown, order.shown) == ([30, 30], [10, 10])
    assert [ranking.query.id for ranking in rankings] == ["1", "2"]
    assert rankings[0].ids == rankings[1].ids
    alone = FeedbackRetriever(dense, by_scores=Stage("a", scores, 30)).retrieve([Query("1", "q")], 5)
    assert alone[0].scores != rankings[0].scores


def test_a_document_that_is_deleted_while_it_is_reranked_stops_nothing(dense: DenseRetriever) -> None:
    goal, index = goal_and_index(dense)
    stage = Stage("teacher", Prefers(goal, index), 12)
    (expected,) = FeedbackRetriever(dense, by_order=stage).retrieve([Query("1", "q")], 20)

    class Changing(DenseIndex):
        """An index that one of the documents has left since."""

        def vectors(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
            raise KeyError(ids[0])

    changing = Changing(index._vectors, index.ids, index.kind)
    (found,) = FeedbackRetriever(DenseRetriever(changing, dense.encoder, dense._corpus), by_order=stage).retrieve(
        [Query("1", "q")], 20
    )
    assert found.ids == expected.ids
    assert isinstance(dense.encoder, FixedEncoder)
    assert len(dense.encoder.embedded) == 12


def test_scores_are_cosines_with_the_vector_that_was_learned(dense: DenseRetriever) -> None:
    goal, index = goal_and_index(dense)
    stage = Stage("teacher", Prefers(10 * goal, index, ScoreKind.LOGIT), 60)
    (after,) = FeedbackRetriever(dense, by_scores=stage, temperature=0.5).retrieve([Query("1", "q")], 200)
    assert max(after.scores) <= 1 + 1e-6
    # All 200 cosines give the vector back: it has to have length one.
    learned, *_ = np.linalg.lstsq(index.vectors(after.ids), np.array(after.scores), rcond=None)
    assert np.linalg.norm(learned) == pytest.approx(1, abs=1e-4)


def test_there_may_be_too_little_to_learn_from(dense: DenseRetriever) -> None:
    goal, index = goal_and_index(dense)
    stage = Stage("teacher", Prefers(goal, index, ScoreKind.LOGIT), 1)
    feedback = FeedbackRetriever(dense, by_scores=stage)
    assert feedback.retrieve([Query("1", "q")], 5)[0].ids == dense.retrieve([Query("1", "q")], 5)[0].ids
    assert feedback.retrieve([], 5) == []
    with pytest.raises(InvalidInputError, match="k is 0"):
        feedback.retrieve([Query("1", "q")], 0)


def test_what_cannot_teach_is_refused(dense: DenseRetriever) -> None:
    goal, index = goal_and_index(dense)
    with pytest.raises(ConfigError, match="needs a stage that teaches"):
        FeedbackRetriever(dense)
    stage = Stage("cosine", Prefers(goal, index, ScoreKind.SIMILARITY), 10)
    with pytest.raises(ConfigError, match="temperature of relevance feedback is 0"):
        FeedbackRetriever(dense, by_scores=stage, temperature=0)
    with pytest.raises(ConfigError, match=r"'cosine' teaches by scores, .* of kind 'similarity'"):
        FeedbackRetriever(dense, by_scores=stage).retrieve([Query("1", "q")], 5)


def test_a_pipeline_names_its_teachers(tmp_path: Path, encoder: Encoder, models_dir: Path) -> None:
    (tmp_path / "shortlist.yaml").write_text(
        f"""
index: index
models_dir: {models_dir.resolve()}
default: feedback
pipelines:
  feedback:
    retriever: {{kind: feedback, by_scores: {{kind: cross-encoder, model: minilm, depth: 3}}}}
  nothing: {{retriever: {{kind: feedback}}}}
"""
    )
    build_ships(tmp_path / "index", encoder)
    pipelines = load_pipelines(tmp_path / "shortlist.yaml")
    assert pipelines.needs_dense("feedback") == "minilm"
    (found,) = pipelines.open("feedback").retrieve([Query("1", "three ships")], 5)
    assert len(found) == 5
    with pytest.raises(ConfigError, match="needs a stage that teaches"):
        pipelines.open("nothing")


def test_the_models_of_its_teachers_are_those_of_the_pipeline(tmp_path: Path, encoder: Encoder, minilm: str) -> None:
    (tmp_path / "shortlist.yaml").write_text(
        """
index: index
models_dir: models
default: feedback
pipelines:
  bm25: {retriever: {kind: bm25}}
  feedback:
    retriever: {kind: feedback, by_order: {kind: cross-encoder, model: teacher, depth: 3, device: cpu}}
  both: {interleave: [bm25, feedback]}
"""
    )
    build_ships(tmp_path / "index", encoder)
    registry = ModelRegistry(tmp_path / "models")

    def write(folder: Path) -> None:
        write_tiny_bert(folder, minilm)

    for version in ("1", "2"):
        card = ModelCard("teacher", version, "cross-encoder", "this test", "none", "sha256:0")
        registry.add(card, write, promote=version == "1")
    pipelines = load_pipelines(tmp_path / "shortlist.yaml")
    first = pipelines.open("feedback")
    assert first.models == pipelines.models("feedback") == {"retrieve/by_order": "teacher@1"}
    assert pipelines.open("both").models == pipelines.models("both") == {"feedback/retrieve/by_order": "teacher@1"}
    pipelines.release(set(first.models.values()))
    assert teacher_of(pipelines.open("feedback")) is teacher_of(first)  # in use, so not loaded again
    registry.promote("teacher", "2")
    assert pipelines.models("feedback") == pipelines.open("feedback").models == {"retrieve/by_order": "teacher@2"}
    assert len(first.retrieve([Query("1", "three ships")], 5)[0]) == 5


def build_ships(root: Path, encoder: Encoder) -> None:
    directory = IndexDirectory(root)
    directory.corpus.append([Document(f"d{i}", f"a text about {i} ships") for i in range(5)])
    directory.build(encoder=encoder, encoder_name="minilm")


def teacher_of(pipeline: Pipeline) -> Ranker:
    assert isinstance(pipeline.retriever, FeedbackRetriever)
    assert pipeline.retriever._by_order is not None
    return pipeline.retriever._by_order.ranker

"""Late interaction: MaxSim against a loop, masks, clusters, sentences, and a real encoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from rankers.errors import ConfigError, InvalidInputError
from rankers.late_interaction import LateInteractionScorer, maxsim, token_maxima
from rankers.pointwise import PointwiseRanker
from rankers.protocols import Scorer
from rankers.sentences import split_sentences
from rankers.token_vectors import SentenceTransformerTokens, TokenVectors, cluster_vectors
from rankers.types import Document, Query, Ranking, Reading, ScoreKind

TEXT = "Dogs were tamed by hunters. Steel is an alloy of iron (and carbon)! It rusts"
QUERY = Query("q", "who tamed dogs")


def unit_vectors(count: int, seed: int, *, dimensions: int = 8) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def brute_force(query: npt.NDArray[np.float32], document: npt.NDArray[np.float32]) -> float:
    return sum(max(sum(float(a) * float(b) for a, b in zip(q, d, strict=True)) for d in document) for q in query)


class Words:
    """Gives every word a vector of its own, the same wherever it occurs; counts the texts it is given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> list[TokenVectors]:
        self.seen += texts
        return [self._encode(text) for text in texts]

    encode_documents = encode_queries

    def _encode(self, text: str) -> TokenVectors:
        words = text.split()
        starts = [0] * len(words)
        for i, word in enumerate(words):
            starts[i] = text.index(word, starts[i - 1] + len(words[i - 1]) if i else 0)
        vectors = [unit_vectors(1, sum(map(ord, word.strip(".").lower())))[0] for word in words]
        offsets = [(start, start + len(word)) for start, word in zip(starts, words, strict=True)]
        return TokenVectors(
            np.array(vectors, dtype=np.float32).reshape(-1, 8),
            np.array(offsets, dtype=np.int64).reshape(-1, 2),
            Reading(len(words), len(words)),
        )


@pytest.fixture(scope="module")
def encoder(minilm: str) -> SentenceTransformerTokens:
    return SentenceTransformerTokens(minilm, device="cpu", max_tokens=32)


@given(queries=st.integers(1, 6), tokens=st.integers(1, 10), seed=st.integers(0, 100))
def test_maxsim_is_what_a_loop_gives(queries: int, tokens: int, seed: int) -> None:
    query, document = unit_vectors(queries, seed), unit_vectors(tokens, seed + 1000)
    assert float(maxsim(query, document)) == pytest.approx(brute_force(query, document), abs=1e-5)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=5),
    padding=st.integers(0, 3),
    seed=st.integers(0, 100),
)
def test_a_padded_batch_gives_what_each_pair_gives_alone(
    lengths: list[tuple[int, int]], padding: int, seed: int
) -> None:
    pairs = [(unit_vectors(q, seed + i), unit_vectors(t, seed + 50 + i)) for i, (q, t) in enumerate(lengths)]
    # Whatever is in the padding does not matter.
    queries = np.full((len(pairs), max(q for q, _ in lengths) + padding, 8), 7.0, dtype=np.float32)
    documents = np.full((len(pairs), max(t for _, t in lengths) + padding, 8), 9.0, dtype=np.float32)
    query_where, document_where = (np.zeros(array.shape[:2], dtype=bool) for array in (queries, documents))
    for i, (query, document) in enumerate(pairs):
        queries[i, : len(query)], query_where[i, : len(query)] = query, True
        documents[i, : len(document)], document_where[i, : len(document)] = document, True
    found = maxsim(queries, documents, query_where=query_where, document_where=document_where)
    np.testing.assert_allclose(found, [float(maxsim(query, document)) for query, document in pairs], atol=1e-5)


def test_padding_never_wins_where_everything_is_dissimilar() -> None:
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    document = np.array([[-1.0, 0.0], [-0.6, 0.8], [0.0, 0.0]], dtype=np.float32)
    assert float(maxsim(query, document, document_where=[True, True, False])) == pytest.approx(-0.6)
    assert float(maxsim(query, document)) == 0.0
    assert maxsim(query, document, document_where=[False] * 3).tolist() == -math.inf
    assert float(maxsim(query, document[:0])) == -math.inf


@given(distinct=st.integers(1, 4), copies=st.integers(3, 5), seed=st.integers(0, 100))
def test_clusters_of_duplicates_are_exact(distinct: int, copies: int, seed: int) -> None:
    vectors, query = unit_vectors(distinct, seed), unit_vectors(3, seed + 1)
    clustered = cluster_vectors(np.tile(vectors, (copies, 1)), fraction=1 / 3)
    assert len(clustered) == distinct
    np.testing.assert_array_equal(token_maxima(query, clustered), token_maxima(query, vectors))


@given(count=st.integers(1, 60), fraction=st.floats(0.05, 1.0), seed=st.integers(0, 100))
def test_clusters_are_few_of_unit_length_and_repeatable(count: int, fraction: float, seed: int) -> None:
    vectors = unit_vectors(count, seed)
    clustered = cluster_vectors(vectors, fraction=fraction, seed=seed)
    assert 1 <= len(clustered) <= math.ceil(fraction * count)
    np.testing.assert_allclose(np.linalg.norm(clustered, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(clustered, cluster_vectors(vectors, fraction=fraction, seed=seed))


def test_clusters_are_the_directions_of_groups() -> None:
    centres = np.eye(8, dtype=np.float32)[:3]
    noise = np.random.default_rng(0).normal(scale=0.02, size=(10, 3, 8)).astype(np.float32)
    groups = centres + noise  # [10, 3, 8]
    clustered = cluster_vectors(groups.reshape(30, 8), fraction=0.1)
    expected = groups.mean(axis=0) / np.linalg.norm(groups.mean(axis=0), axis=1, keepdims=True)
    order = np.argmax(clustered @ expected.T, axis=0)
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(clustered[order], expected, atol=1e-5)


@given(st.text(alphabet='ab .!?\n)"…。', max_size=40))
def test_sentences_hold_all_text_in_order_and_once(text: str) -> None:
    spans = split_sentences(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_sentences_end_where_the_rule_says() -> None:
    text = 'It is 3.5 m (or so.) He said "No!" and left… A heading\nfine。好'
    assert [text[start:end] for start, end in split_sentences(text)] == [
        "It is 3.5 m (or so.)",
        'He said "No!"',
        "and left…",
        "A heading",
        "fine。",
        "好",
    ]


def test_the_score_is_the_mean_over_the_tokens_of_the_query() -> None:
    encoder, document = Words(), Document("d", "dogs were here", title="Old")
    scorer = LateInteractionScorer(encoder)
    assert isinstance(scorer, Scorer)
    scored = scorer.score([(QUERY, document), (QUERY, Document("e", "who tamed dogs")), (Query("r", "x"), document)])
    (asked,), (read,) = encoder.encode_queries([QUERY.text]), encoder.encode_documents([document.content])
    assert scored.scores[0] == pytest.approx(brute_force(asked.vectors, read.vectors) / 3, abs=1e-5)
    assert scored.scores[1] == pytest.approx(1.0)
    assert scored.readings == (Reading(4, 4), Reading(3, 3), Reading(4, 4))
    assert scored.tokens == (7, 6, 5)
    # Each text is encoded once.
    assert encoder.seen[:-2] == [QUERY.text, "x", document.content, "who tamed dogs"]


def test_texts_without_tokens_get_the_least_score() -> None:
    scorer = LateInteractionScorer(Words(), prune=0.5)
    pairs = [(QUERY, Document("d", "")), (Query("r", " "), Document("e", "dogs"))]
    assert scorer.score(pairs).scores.tolist() == [-1.0, -1.0]
    assert scorer.score([]).scores.shape == (0,)


def test_scores_make_a_ranking() -> None:
    incoming = Ranking.from_order(QUERY, [Document("no", "it rains"), Document("yes", "hunters tamed dogs")])
    (result,) = PointwiseRanker(LateInteractionScorer(Words())).rank([incoming])
    assert result.ids == ("yes", "no")
    assert result.score_kind is ScoreKind.SIMILARITY


def test_pruning_keeps_a_share_of_the_vectors() -> None:
    # Two words, four times each: a quarter of eight vectors says as much as all of them.
    document = Document("d", "dogs cats " * 4)
    whole, pruned = (LateInteractionScorer(Words(), prune=prune).score([(QUERY, document)]) for prune in (None, 0.25))
    assert pruned.scores.tolist() == whole.scores.tolist()
    assert pruned.readings == whole.readings
    (read,) = Words().encode_documents([document.content])
    (asked,) = Words().encode_queries([QUERY.text])
    (halved,) = LateInteractionScorer(Words(), prune=0.1).score([(QUERY, document)]).scores
    centroid = cluster_vectors(read.vectors, fraction=0.1)
    assert centroid.shape == (1, 8)
    assert halved == pytest.approx(float(maxsim(asked.vectors, centroid)) / 3, abs=1e-6)


@given(st.lists(st.sampled_from(["dogs", "cats.", "tamed", "it", "rains!", "who?"]), min_size=1, max_size=15))
def test_the_best_of_the_sentences_is_the_document(words: list[str]) -> None:
    scorer, document = LateInteractionScorer(Words()), Document("d", "  " + " ".join(words))
    sentences = scorer.sentence_scores(QUERY, document)
    assert [(sentence.start, sentence.end) for sentence in sentences] == split_sentences(document.content)
    maxima = np.max([sentence.maxima for sentence in sentences], axis=0)
    (whole,) = scorer.score([(QUERY, document)]).scores
    assert maxima.mean() == pytest.approx(whole, abs=1e-6)
    for sentence in sentences:
        alone = Document("s", document.content[sentence.start : sentence.end])
        # The vectors of these words do not depend on what is around them.
        assert sentence.score == pytest.approx(scorer.score([(QUERY, alone)]).scores[0], abs=1e-6)
        assert sentence.score == pytest.approx(np.mean(sentence.maxima), abs=1e-6)


def test_the_encoder_gives_the_token_embeddings_of_sentence_transformers(
    minilm: str, encoder: SentenceTransformerTokens
) -> None:
    plain = SentenceTransformer(minilm, device="cpu")
    (found,) = encoder.encode_documents([TEXT])
    (expected,) = plain.encode([TEXT], output_value="token_embeddings")
    rows = expected[1:-1].numpy()  # without [CLS] and [SEP]
    np.testing.assert_allclose(found.vectors, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-5)
    words = [TEXT[start:end].lower() for start, end in found.offsets]
    assert words[:6] == ["dogs", "were", "tame", "d", "by", "hunters"]
    assert found.reading == Reading(len(words), len(words))


def test_a_batch_gives_what_each_pair_gives_alone(encoder: SentenceTransformerTokens) -> None:
    scorer = LateInteractionScorer(encoder)
    pairs = [(QUERY, Document("a", TEXT)), (Query("r", "steel"), Document("b", "  Iron. ")), (QUERY, Document("c", ""))]
    together = scorer.score(pairs)
    for i, pair in enumerate(pairs):
        alone = scorer.score([pair])
        assert alone.scores[0] == pytest.approx(together.scores[i], abs=1e-5)
        assert alone.readings[0] == together.readings[i]
    assert together.scores[2] == -1.0
    assert encoder.encode_queries([]) == []


def test_a_long_document_is_cut_and_reported(encoder: SentenceTransformerTokens) -> None:
    scorer = LateInteractionScorer(encoder)
    first, second = (Document(end, "Steel rusts. " * 10 + "It rains. " * 10 + end) for end in ("dogs", "cats"))
    scored = scorer.score([(QUERY, first), (QUERY, second)])
    # 32 less [CLS] and [SEP]; steel, rust, ##s and a full stop are four tokens, the other sentence is three.
    assert scored.readings[0] == Reading(30, 71)
    assert scored.scores[0] == pytest.approx(scored.scores[1], abs=1e-6)
    sentences = scorer.sentence_scores(QUERY, first)
    assert len(sentences) < len(split_sentences(first.content))
    assert max(sentence.end for sentence in sentences) >= max(
        encoder.encode_documents([first.content])[0].offsets[:, 1]
    )


def test_sentences_of_a_real_encoder_are_told_apart(encoder: SentenceTransformerTokens) -> None:
    scorer, document = LateInteractionScorer(encoder), Document("d", TEXT)
    sentences = scorer.sentence_scores(QUERY, document)
    assert [TEXT[sentence.start : sentence.end] for sentence in sentences] == [
        "Dogs were tamed by hunters.",
        "Steel is an alloy of iron (and carbon)!",
        "It rusts",
    ]
    assert max(sentences, key=lambda sentence: sentence.score).start == 0
    (whole,) = scorer.score([(QUERY, document)]).scores
    assert np.max([sentence.maxima for sentence in sentences], axis=0).mean() == pytest.approx(whole, abs=1e-6)


def test_a_prompt_of_the_model_shapes_vectors_and_gets_none(
    minilm: str, encoder: SentenceTransformerTokens, tmp_path: Path
) -> None:
    SentenceTransformer(minilm, device="cpu", prompts={"document": "passage: "}).save_pretrained(str(tmp_path))
    (plain,) = encoder.encode_documents(["steel rusts"])
    (prompted,) = SentenceTransformerTokens(str(tmp_path), device="cpu").encode_documents(["steel rusts"])
    np.testing.assert_array_equal(prompted.offsets, plain.offsets)
    assert prompted.reading == plain.reading
    assert np.abs(prompted.vectors - plain.vectors).max() > 1e-3


def test_what_cannot_work_is_refused(minilm: str, encoder: SentenceTransformerTokens) -> None:
    with pytest.raises(ConfigError, match="cannot load 'nowhere/model'"):
        SentenceTransformerTokens("nowhere/model", device="cpu")
    for share in (0.0, 1.5):
        with pytest.raises(ConfigError, match=f"prune is {share}"):
            LateInteractionScorer(encoder, prune=share)
        with pytest.raises(ConfigError, match=f"keep is {share}"):
            cluster_vectors(unit_vectors(3, 0), fraction=share)
    with pytest.raises(InvalidInputError, match="query 'r' is ''; it needs some words"):
        LateInteractionScorer(encoder).sentence_scores(Query("r", ""), Document("d", TEXT))

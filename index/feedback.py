"""Relevance feedback: rerankers teach the query vector at query time, and the moved vector retrieves again.

The vector of the query alone is optimised; those of the passages stay. First it learns the scores of one reranker,
then the order of another (Reddy, Doo, Xu, Sultan, Swain, Sil, Ji, "FIRST: Faster Improved Listwise Reranking with
Single Token Decoding", arXiv 2406.15657; the scores alone: "ReFIT: Relevance Feedback from a Reranker during
Inference", arXiv 2305.11744). Steps and learning rates are those of the former; a dimension of 384 and lists of 100
take milliseconds per query, the rerankers take the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from index.retrievers import DenseRetriever, check_retrieval
from rankers.errors import ConfigError
from rankers.pipeline import Stage
from rankers.types import Query, Ranking, ScoreKind

Vector = npt.NDArray[np.float64]
Loss = Callable[[Vector], tuple[float, Vector]]
"""From the scores of a list, float64 [L], to a loss and its gradient with respect to them, float64 [L]."""

SCORE_STEPS, SCORE_RATE = 100, 5e-3
ORDER_STEPS, ORDER_RATE = 20, 1e-3
SOFTMAX_SCORES = (ScoreKind.LOGIT, ScoreKind.LOG_PROBABILITY, ScoreKind.PREFERENCE)
"""Scores whose softmax over a list means something."""


class FeedbackRetriever:
    """Retrieves by nearest vectors, has the best candidates reranked, and retrieves again with what was learned.

    Parameters
    ----------
    retriever
        Searches, before and after.
    by_scores
        A stage whose scores are log-odds or log-probabilities, such as a cross-encoder; it teaches first, by `kl_loss`,
        the candidates within its depth.
    by_order
        A stage whose order is taught, such as a listwise LLM, by `ranknet_loss`; it orders what `by_scores` left.
    temperature
        What inner products are divided by before the softmax of `kl_loss`; above 0. Cosines need about 0.05: at 1 their
        softmax is nearly flat, and the vector runs away to sharpen it.

    Raises
    ------
    ConfigError
        If there is no stage, or the temperature is out of range.
    """

    def __init__(
        self,
        retriever: DenseRetriever,
        *,
        by_scores: Stage | None = None,
        by_order: Stage | None = None,
        temperature: float = 0.05,
    ) -> None:
        if by_scores is None and by_order is None:
            raise ConfigError("relevance feedback needs a stage that teaches; give by_scores, by_order or both")
        if temperature <= 0:
            raise ConfigError(f"temperature of relevance feedback is {temperature}, must be above 0")
        self._retriever = retriever
        self._by_scores = by_scores
        self._by_order = by_order
        self._temperature = temperature

    @property
    def models(self) -> dict[str, str]:
        """Versions of the registry that teach, ``name@version`` by role."""
        roles = {"by_scores": self._by_scores, "by_order": self._by_order}
        return {role: stage.model for role, stage in roles.items() if stage is not None and stage.model}

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find at most `k` documents per query; raises `InvalidInputError` for an empty text or a `k` under 1."""
        check_retrieval(queries, k)
        vectors = self._retriever.encoder.encode_queries([query.text for query in queries])
        stages = [stage for stage in (self._by_scores, self._by_order) if stage is not None]
        rankings = self._retriever.retrieve_near(queries, vectors, max(stage.depth for stage in stages))
        for stage in stages:
            heads = stage.ranker.rank([stage.head(ranking) for ranking in rankings])
            for i, head in enumerate(heads):
                if len(head) > 1:
                    vectors[i] = self._teach(vectors[i], head, stage)
            rankings = [stage.rejoin(head, ranking) for head, ranking in zip(heads, rankings, strict=True)]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # so that scores are cosines again
        return self._retriever.retrieve_near(queries, vectors, k)

    def _teach(self, query: npt.NDArray[np.float32], ranking: Ranking, stage: Stage) -> npt.NDArray[np.float32]:
        passages = self._vectors(ranking)
        if stage is not self._by_scores:
            return move_query(query, passages, ranknet_loss, steps=ORDER_STEPS, learning_rate=ORDER_RATE)
        if ranking.score_kind not in SOFTMAX_SCORES:
            raise ConfigError(
                f"stage {stage.name!r} teaches by scores, and its scores are of kind {ranking.score_kind.value!r}; "
                f"let it teach by_order, or take one with {', '.join(kind.value for kind in SOFTMAX_SCORES)}"
            )
        loss = kl_loss(ranking.scores, temperature=self._temperature)
        return move_query(query, passages, loss, steps=SCORE_STEPS, learning_rate=SCORE_RATE)

    def _vectors(self, ranking: Ranking) -> npt.NDArray[np.float32]:
        try:
            return self._retriever.index.vectors(ranking.ids)
        except KeyError:  # one was deleted while it was reranked
            return self._retriever.encoder.encode_documents([document.content for document in ranking.documents])


def kl_loss(teacher: npt.ArrayLike, *, temperature: float = 1.0) -> Loss:
    """KL divergence of a list's softmax from its teacher's: sum of p log(p / softmax(s / temperature)).

    Parameters
    ----------
    teacher
        Log-odds or log-probabilities, float [L]; p is their softmax.
    temperature
        Of the student, above 0.

    Returns
    -------
    Loss
        Its gradient with respect to s is (softmax(s / temperature) - p) / temperature.

    Examples
    --------
    >>> loss = kl_loss([np.log(3.0), 0.0])
    >>> value, gradient = loss(np.zeros(2))  # .75 ln(.75 / .5) + .25 ln(.25 / .5)
    >>> round(value, 4), gradient.tolist()
    (0.1308, [-0.25, 0.25])
    """
    log_p = _log_softmax(np.asarray(teacher, dtype=np.float64))
    p = np.exp(log_p)

    def loss(scores: Vector) -> tuple[float, Vector]:
        log_q = _log_softmax(scores / temperature)
        # A probability of zero adds nothing, whatever its logarithm.
        return float(np.sum(p * (np.where(p > 0, log_p, 0.0) - log_q))), (np.exp(log_q) - p) / temperature

    return loss


def ranknet_loss(scores: Vector) -> tuple[float, Vector]:
    """Weighted RankNet: the mean over places i < j of log(1 + exp(s_j - s_i)) / (i + j), counted from 1.

    Parameters
    ----------
    scores
        Of the student, float64 [L], in the teacher's order, L at least 2.

    Returns
    -------
    tuple
        The loss, and its gradient with respect to the scores. (FIRST, arXiv 2406.15657.)

    Examples
    --------
    >>> value, gradient = ranknet_loss(np.zeros(2))  # ln 2 / 3
    >>> round(value, 4), gradient.round(4).tolist()
    (0.231, [-0.1667, 0.1667])
    """
    length = len(scores)
    better, worse = np.triu_indices(length, k=1)
    weights = 1.0 / (better + worse + 2)
    margins = scores[worse] - scores[better]
    # The sigmoid of a margin, written so that it cannot overflow.
    pulls = weights * (0.5 + 0.5 * np.tanh(margins / 2)) / len(better)
    gradient: Vector = np.zeros(length)
    np.add.at(gradient, worse, pulls)
    np.subtract.at(gradient, better, pulls)
    return float(np.mean(weights * np.logaddexp(0.0, margins))), gradient


def move_query(
    query: npt.NDArray[np.float32],
    passages: npt.NDArray[np.float32],
    loss: Loss,
    *,
    steps: int,
    learning_rate: float,
) -> npt.NDArray[np.float32]:
    """Minimise a loss of the inner products with passages over the query vector, by Adam.

    Parameters
    ----------
    query
        float32 [D], where it starts.
    passages
        float32 [L, D].
    loss
        Of the scores `passages @ query`, float64 [L].
    steps
        Steps of Adam (arXiv 1412.6980, algorithm 1, with its default decay rates).
    learning_rate
        Length of a step in each dimension, about.

    Returns
    -------
    ndarray
        float32 [D]: where it ends.
    """
    vector, matrix = query.astype(np.float64), passages.astype(np.float64)
    mean, square = np.zeros_like(vector), np.zeros_like(vector)
    for step in range(1, steps + 1):
        _, by_score = loss(matrix @ vector)
        gradient = by_score @ matrix
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        vector -= learning_rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return vector.astype(np.float32)


def _log_softmax(values: Vector) -> Vector:
    shifted = values - values.max()
    normalised: Vector = shifted - np.log(np.exp(shifted).sum())
    return normalised

"""Several retrievers asked together, their rankings fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from index.retrievers import check_retrieval
from rankers.errors import ConfigError
from rankers.protocols import Retriever
from rankers.types import Query, Ranking


class HybridRetriever:
    """Retrieves with each of several retrievers and fuses what they find.

    Parameters
    ----------
    retrievers
        At least one.
    fusion
        Makes one ranking of one per retriever, in their order; `rankers.fusion` has two.
    depth
        Candidates taken from each retriever, at least 1; as many as are wanted, where that is more.

    Raises
    ------
    ConfigError
        If there is no retriever or `depth` is under 1.
    """

    def __init__(
        self, retrievers: Sequence[Retriever], fusion: Callable[[Sequence[Ranking]], Ranking], depth: int
    ) -> None:
        if not retrievers or depth < 1:
            raise ConfigError(
                f"hybrid retrieval needs a retriever and a depth of at least 1, got {len(retrievers)} and {depth}"
            )
        self._retrievers = tuple(retrievers)
        self._fusion = fusion
        self._depth = depth

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find at most `k` documents per query; raises `InvalidInputError` for an empty text or a `k` under 1."""
        check_retrieval(queries, k)
        depth = max(k, self._depth)
        found = [retriever.retrieve(queries, depth) for retriever in self._retrievers]
        return [self._fusion(rankings).top(k) for rankings in zip(*found, strict=True)]

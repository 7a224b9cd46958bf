"""What shapes an index when it is built, and what shapes a search."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from index.spann import memory
from rankers.errors import InvalidInputError

Metric = Literal["ip", "cosine", "l2"]
"""``ip``: inner product. ``cosine``: that of vectors of unit length. ``l2``: minus the squared distance."""
Codec = Literal["pq", "sq8", "float32", "rabitq"]
"""How a posting keeps a vector: two bits per number in blocks that are scanned in registers; one byte per number; as it
is; or one bit per number (Gao, Long, "RaBitQ", SIGMOD 2024)."""

DEFAULT_CODEC: Codec = "pq"
HEAD_RATIO = 0.04
SMALLEST_HEAD_RATIO = 0.002
GREATEST_HEAD_RATIO = 0.16
SPARE = 0.2
"""Part of the memory for heads that is left to segments of rows that come later."""


@dataclass(frozen=True, slots=True)
class SpannParameters:
    """How an index is built; the defaults suit embeddings of text.

    Parameters
    ----------
    metric
        What a score is; greater is better in all three.
    codec
        How postings keep vectors. None: what `max_memory_mb` makes the fastest, see `index.spann.memory.fastest_codec`,
        for each segment when it is built; without a budget, ``pq``.
    head_ratio
        Heads per vector, over 0 and at most 1. None: what `max_memory_mb` allows, at most 0.16; without either, 0.04.
    max_memory_mb
        Memory a search may hold, in 10^6 bytes: see `index.spann.memory`. Decides the head ratio and the codec where
        they are None, and how many rows the delta buffer may have.
    replicas
        Most postings a vector is in, 1 to 32. More find more per posting read, for more disk.
    rng_factor
        A head joins a vector's replicas unless `rng_factor` times its distance to an earlier one is less than its
        distance to the vector. Smaller keeps fewer.
    posting_limit
        Copies of vectors whose own head is another one are left out of postings longer than this.
    seed
        Of samples. The same seed and vectors give the same index.
    """

    metric: Metric = "ip"
    codec: Codec | None = None
    head_ratio: float | None = None
    max_memory_mb: float | None = None
    replicas: int = 8
    rng_factor: float = 1.0
    posting_limit: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("metric", self.metric, get_args(Metric))
        if self.codec is not None:
            _check_choice("codec", self.codec, get_args(Codec))
        if self.head_ratio is not None and not 0 < self.head_ratio <= 1:
            raise InvalidInputError(f"head_ratio must be in (0, 1], got {self.head_ratio}", field="head_ratio")
        if self.max_memory_mb is not None and not 0 < self.max_memory_mb < math.inf:
            raise InvalidInputError(f"max_memory_mb must be over 0, got {self.max_memory_mb}", field="max_memory_mb")
        if not 1 <= self.replicas <= 32:
            raise InvalidInputError(f"replicas must be 1 to 32, got {self.replicas}", field="replicas")
        if self.posting_limit < 1:
            raise InvalidInputError(f"posting_limit must be over 0, got {self.posting_limit}", field="posting_limit")
        if not self.rng_factor > 0:
            raise InvalidInputError(f"rng_factor must be over 0, got {self.rng_factor}", field="rng_factor")

    def heads(self, vectors: int, dimensions: int) -> int:
        """Say how many heads an index of one segment gets.

        Parameters
        ----------
        vectors
            N.
        dimensions
            D.

        Returns
        -------
        int
            At least 1, unless there are no vectors.

        Raises
        ------
        InvalidInputError
            If `max_memory_mb` is too little; the message says how much is the least.

        Examples
        --------
        >>> SpannParameters().heads(100_000, 384)
        4000
        >>> SpannParameters(max_memory_mb=10).heads(100_000, 384)
        3661
        """
        wanted = HEAD_RATIO if self.max_memory_mb is None else GREATEST_HEAD_RATIO
        count = math.ceil((self.head_ratio or wanted) * vectors)
        if self.max_memory_mb is None:
            return count
        space = self._space(self.max_memory_mb * 1e6, vectors, dimensions)
        affordable = memory.affordable_heads(space, dimensions, self.codec_or_default)
        least = math.ceil((self.head_ratio or SMALLEST_HEAD_RATIO) * vectors)
        if affordable < least:
            needed = memory.least_budget_mb(vectors, least, dimensions, self.codec_or_default)
            raise InvalidInputError(
                f"{vectors:,} vectors of {dimensions} dimensions need max_memory_mb of at least {needed:.1f}, "
                f"got {self.max_memory_mb:g}",
                field="max_memory_mb",
            )
        spared = memory.affordable_heads((1 - SPARE) * space, dimensions, self.codec_or_default)
        return max(least, min(spared, count))

    def for_segment(self, rows: int, dimensions: int, *, vectors: int, others: int) -> SpannParameters:
        """Fix the heads and the codec of one segment of an index, so that all together keep to `max_memory_mb`.

        Parameters
        ----------
        rows
            Vectors of the segment.
        dimensions
            D.
        vectors
            Vectors of the index.
        others
            Bytes that heads and codecs of the segments beside it take.

        Returns
        -------
        SpannParameters
            With a `codec`, and where there is a budget with a `head_ratio` instead of it.

        Raises
        ------
        InvalidInputError
            If the others leave too little, or there is too little for all.
        """
        if self.max_memory_mb is None:
            return self.with_codec(rows, dimensions)
        share = self.heads(vectors, dimensions) / vectors * rows
        space = self._space(self.max_memory_mb * 1e6, vectors, dimensions) - others
        left = memory.affordable_heads(space, dimensions, self.codec_or_default)
        if left < SMALLEST_HEAD_RATIO * rows:
            raise InvalidInputError(
                f"{rows:,} rows cannot be a segment of their own within max_memory_mb of {self.max_memory_mb:g}"
            )
        heads = max(1, min(left, math.ceil(share)))
        codec = self.codec or memory.fastest_codec(heads, rows, dimensions)
        return replace(self, codec=codec, head_ratio=(heads - 0.5) / rows, max_memory_mb=None)

    def with_codec(self, rows: int, dimensions: int) -> SpannParameters:
        """Name the codec of a segment, where none is named.

        Parameters
        ----------
        rows
            Of the segment.
        dimensions
            Numbers of a vector.

        Returns
        -------
        SpannParameters
            The same, with a codec.

        Raises
        ------
        InvalidInputError
            If `max_memory_mb` is too little; see `heads`.

        Examples
        --------
        >>> SpannParameters().with_codec(100_000, 96).codec
        'pq'
        >>> SpannParameters(max_memory_mb=3).with_codec(100_000, 96).codec
        'pq'
        >>> SpannParameters(max_memory_mb=12).with_codec(100_000, 96).codec
        'sq8'
        """
        if self.codec is not None:
            return self
        if self.max_memory_mb is None:
            return replace(self, codec=DEFAULT_CODEC)
        return replace(self, codec=memory.fastest_codec(self.heads(rows, dimensions), rows, dimensions))

    def delta_rows(self, dimensions: int) -> int | None:
        """Say how many rows of so many dimensions `max_memory_mb` allows in the delta buffer; None if there is none."""
        return None if self.max_memory_mb is None else memory.delta_rows(self.max_memory_mb * 1e6, dimensions)

    @property
    def codec_or_default(self) -> Codec:
        """The codec that is named, else ``pq``: of those that a budget chooses from, the one that holds the most."""
        return self.codec or DEFAULT_CODEC

    def _space(self, budget: float, vectors: int, dimensions: int) -> float:
        """Bytes of a budget that are left for heads and codecs."""
        delta = memory.delta_bytes(memory.delta_rows(budget, dimensions), dimensions)
        return budget - memory.live_bytes(vectors) - delta


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a search looks: what the tuner fits, and what a wanted recall stands for.

    Parameters
    ----------
    lists
        Most postings read per query.
    pruning
        A posting is skipped if the squared distance of its head is over this many times that of the head at place
        `anchor`; ``inf`` skips none.
    rerank
        Candidates per query whose exact scores are computed from the raw vectors.
    anchor
        Place of the head that pruning measures against: 1 as published; 10 by default, as near duplicates upset less.
    """

    lists: int = 64
    pruning: float = math.inf
    rerank: int = 100
    anchor: int = 10

    def __post_init__(self) -> None:
        for name in ("lists", "rerank", "anchor"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}", field=name)
        if not self.pruning >= 0:
            raise InvalidInputError(f"pruning must be at least 0, got {self.pruning}", field="pruning")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInputError(f"no {name} {value!r}; there are {', '.join(choices)}", field=name)

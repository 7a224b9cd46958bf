"""Overlapping blocks that are all read at once, then aggregated (JointRank, arXiv 2506.22262)."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rankers.errors import ConfigError
from rankers.listwise.aggregate import AGGREGATES, pair_wins, verdict
from rankers.listwise.strategies.groupwise import cut_evenly
from rankers.listwise.windows import Plan, Signal, Window

DESIGNS = ("equi-replicate", "latin-square", "triangular")


@dataclass(frozen=True, slots=True)
class Blocks:
    """Every candidate is shown in several blocks, each time among others; every block gives all its pairs.

    Designs (Bose, Shimamoto, "Classification and analysis of partially balanced incomplete block designs with two
    associate classes", JASA 1952), with candidates put in them at random:

    - "equi-replicate": shuffle and cut, `repeats` times; again where that leaves candidates that no chain of blocks
      connects, which happens to blocks of 2 to 4 repeated twice.
    - "latin-square": candidates are cells of a square; blocks are its rows, its columns, and for every repeat beyond
      the second the cells where a Latin square, orthogonal to the others, has the same symbol. No two candidates meet
      twice. Blocks hold at most about sqrt(count).
    - "triangular": candidates are pairs of blocks, so no two blocks share more than one; 2 repeats. Blocks hold at most
      about sqrt(2 count).

    Parameters
    ----------
    size
        Most candidates in a block, at least 2.
    repeats
        In how many blocks each candidate is, at least 2.
    design
        How blocks are made.
    aggregate
        How pair wins become scores: "bradley-terry" or "elo" (`ScoreKind.PREFERENCE`), "win-rate" or "pagerank"
        (`ScoreKind.SHARE`). See `rankers.listwise.aggregate`.
    soft
        Whether a pair's win is shared by the logits of its block.
    shown
        How the candidates of a block are ordered in its prompt: as they came in ("incoming"), so that a model that
        leans on the first places leans on the first stage, or at random ("shuffled"), so that it leans on nothing.
    seed
        Of the shuffles.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the triangular design is asked for other than 2 repeats.
    """

    size: int = 20
    repeats: int = 4
    design: Literal["equi-replicate", "latin-square", "triangular"] = "equi-replicate"
    aggregate: Literal["bradley-terry", "win-rate", "pagerank", "elo"] = "bradley-terry"
    soft: bool = False
    shown: Literal["incoming", "shuffled"] = "incoming"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"block size is {self.size}, must be at least 2")
        if self.repeats < 2:
            raise ConfigError(f"repeats is {self.repeats}, must be at least 2, or blocks would not be connected")
        if self.design not in DESIGNS:
            raise ConfigError(f"design is {self.design!r}, must be one of {', '.join(DESIGNS)}")
        if self.design == "triangular" and self.repeats != 2:
            raise ConfigError(f"repeats is {self.repeats}, a triangular design has 2; set repeats to 2")
        if self.aggregate not in AGGREGATES:
            raise ConfigError(f"aggregate is {self.aggregate!r}, must be one of {', '.join(AGGREGATES)}")
        if self.shown not in {"incoming", "shuffled"}:
            raise ConfigError(f"shown is {self.shown!r}, must be incoming or shuffled")

    @property
    def needs(self) -> Signal:
        """The order of a window; logits where wins are soft."""
        return Signal.LOGITS if self.soft else Signal.ORDER

    @property
    def window_size(self) -> int:
        """Most candidates in one window."""
        return self.size

    def plan(self, count: int) -> Plan:
        """Order candidates by the aggregate of their pair wins, equal ones in the incoming order.

        Up to `size` candidates are one block. Where candidates do not fill a design, or would make its blocks larger
        than `size`, the next larger design is taken and some of its places stay empty. A block with one candidate is
        not shown, and a block that could not be read says nothing.

        Parameters
        ----------
        count
            Number of candidates.

        Returns
        -------
        Plan
            All blocks together.

        Examples
        --------
        >>> from rankers.listwise.windows import planned_windows
        >>> len(planned_windows(Blocks(size=20, repeats=4), 100))
        20
        """
        blocks = self._blocks(count)
        outcomes = yield blocks
        scores_of, kind = AGGREGATES[self.aggregate]
        scores = scores_of(pair_wins(blocks, outcomes, count, soft=self.soft))
        return verdict(scores, score_kind=kind, ties=range(count))

    def _blocks(self, count: int) -> list[Window]:
        if count <= self.size:
            return [tuple(range(count))]
        shuffler = random.Random(self.seed)
        if self.design == "equi-replicate":
            blocks = _equi_replicate(shuffler, count, self.size, self.repeats)
        elif self.design == "latin-square":
            blocks = _latin_square(shuffler.sample(range(count), count), self.size, self.repeats)
        else:
            blocks = _triangular(shuffler.sample(range(count), count), self.size)
        ordered = sorted if self.shown == "incoming" else tuple
        return [tuple(ordered(block)) for block in blocks if len(block) > 1]


def _equi_replicate(shuffler: random.Random, count: int, size: int, repeats: int) -> list[Window]:
    while True:
        shuffled = [shuffler.sample(range(count), count) for _ in range(repeats)]
        blocks = [block for candidates in shuffled for block in cut_evenly(candidates, size)]
        if _connected(blocks, count):
            return blocks


def _connected(blocks: Sequence[Window], count: int) -> bool:
    """Whether a chain of blocks, each with a candidate of the next, leads from any candidate to any other."""
    of_candidate: list[list[int]] = [[] for _ in range(count)]
    for i, block in enumerate(blocks):
        for candidate in block:
            of_candidate[candidate].append(i)
    reached, entered, todo = {0}, set[int](), [0]
    while todo:
        for i in of_candidate[todo.pop()]:
            if i not in entered:
                entered.add(i)
                todo.extend(set(blocks[i]) - reached)
                reached.update(blocks[i])
    return len(reached) == count


def _latin_square(candidates: Sequence[int], size: int, repeats: int) -> list[Window]:
    """Rows, columns, and the symbols of the squares (m row + column) mod side for m = 1, 2, ...

    Those squares are Latin, and orthogonal to each other, where no m has a factor in common with the side. A side that
    is large for the candidates keeps them apart: there are fewer repeats then.
    """
    multipliers = range(1, repeats - 1)
    for side in itertools.count(max(math.isqrt(len(candidates) - 1) + 1, math.ceil(len(candidates) / size))):
        if any(math.gcd(m, side) > 1 for m in multipliers):
            continue
        blocks: list[list[int]] = [[] for _ in range(repeats * side)]
        for cell, candidate in enumerate(candidates):
            # Along diagonals, so that the cells left empty are spread over rows and columns.
            row, column = cell % side, (cell + cell // side) % side
            for kind, place in enumerate((row, column, *((m * row + column) % side for m in multipliers))):
                blocks[kind * side + place].append(candidate)
        if max(map(len, blocks)) <= size:
            break
    windows = [tuple(block) for block in blocks]
    if repeats > 2 and not _connected(windows, len(candidates)):
        return _latin_square(candidates, size, repeats - 1)
    return windows


def _triangular(candidates: Sequence[int], size: int) -> list[Window]:
    """The fewest n blocks with n (n - 1) / 2 pairs for all candidates; each is in the two blocks of its pair."""
    enough = math.ceil((1 + math.sqrt(1 + 8 * len(candidates))) / 2)
    for n in itertools.count(max(enough, math.ceil(2 * len(candidates) / size))):
        # Near pairs around a circle first, so that the pairs left out are spread over the blocks.
        pairs = ((i, (i + gap) % n) for gap in range(1, n // 2 + 1) for i in range(n if 2 * gap < n else gap))
        blocks: list[list[int]] = [[] for _ in range(n)]
        for candidate, pair in zip(candidates, pairs, strict=False):
            for block in pair:
                blocks[block].append(candidate)
        if max(map(len, blocks)) <= size:
            break
    return [tuple(block) for block in blocks]

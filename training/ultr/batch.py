"""What one step of learning sees: some lists with their features and counts, as tensors.

Letters in shapes: B lists of the batch, L places, F features, K slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.ultr.lists import ClickLists
from training.ultr.sessions import pair_counts

ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class ListwiseBatch:
    """Some lists.

    Parameters
    ----------
    features
        float32 [B, L, F], as the network reads them; anything at places that do not exist. F is 0 in batches of counts.
    clicks
        float32 [B, L], sessions that clicked the place; or labels as gains, for learning from judgements.
    slots
        int64 [B, L], where each place is examined: position - 1 in a plain list; 0 at places that do not exist.
    mask
        bool [B, L], the places that exist.
    shown
        float32 [B], sessions that showed the list.
    pairs
        float32 [B, L, L], sessions that clicked the place of the row and not that of the column, for pairwise losses.
    """

    features: Tensor
    clicks: Tensor
    slots: Tensor
    mask: Tensor
    shown: Tensor
    pairs: Tensor | None = None


class BatchSource:
    """All lists as tensors, to take batches from.

    Parameters
    ----------
    lists
        The collapsed log.
    features
        float32 [N, F'], one row per row of `lists.features`, as the network reads them.
    pairs
        Whether batches need pair counts.
    """

    def __init__(self, lists: ClickLists, features: Tensor, *, pairs: bool = False) -> None:
        self._features = features
        self._rows = torch.from_numpy(np.maximum(lists.rows, 0))
        self._clicks = torch.from_numpy(lists.clicks).float()
        self._slots = torch.from_numpy(np.where(lists.mask, lists.slots, 0))
        self._mask = torch.from_numpy(lists.mask)
        self._shown = torch.from_numpy(lists.shown).float()
        self._pairs = torch.from_numpy(pair_counts(lists)) if pairs else None

    def batch(self, chosen: Tensor) -> ListwiseBatch:
        """Take the lists with these numbers, int64 [B]."""
        return self._counts(chosen, self._features[self._rows[chosen]])

    def _counts(self, chosen: Tensor, features: Tensor) -> ListwiseBatch:
        return ListwiseBatch(
            features=features,
            clicks=self._clicks[chosen],
            slots=self._slots[chosen],
            mask=self._mask[chosen],
            shown=self._shown[chosen],
            pairs=None if self._pairs is None else self._pairs[chosen],
        )

    def session_batch(self, list_numbers: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]) -> ListwiseBatch:
        """Make a batch of single sessions, one list each, for learning from a stream that is not counted.

        Parameters
        ----------
        list_numbers
            int64 [B], the list each session showed.
        clicked
            bool [B, L].

        Returns
        -------
        ListwiseBatch
            Each list shown once; without pair counts.
        """
        batch = self.batch(torch.from_numpy(list_numbers))
        clicks = torch.from_numpy(clicked).float()
        return replace(batch, clicks=clicks, shown=torch.ones(len(clicks)), pairs=None)

    def scored(self, scorer: Callable[[Tensor], Tensor], chosen: Tensor) -> tuple[Tensor, ListwiseBatch]:
        """Score all places of lists, each document once; float32 [B, L], and the counts without features."""
        rows = self._rows[chosen]
        distinct, places = rows.unique(return_inverse=True)
        with torch.no_grad():
            scores = torch.cat([scorer(self._features[part]) for part in distinct.split(ROWS_AT_ONCE)])
        return scores[places], self._counts(chosen, self._features[:, :0][rows])

    def shuffled(self, chosen: Tensor, *, batch_lists: int, generator: torch.Generator) -> Iterator[ListwiseBatch]:
        """Go through lists once in random order, in batches of about equal size of at most `batch_lists`."""
        order = chosen[torch.randperm(len(chosen), generator=generator)]
        for part in order.tensor_split(max(1, -(-len(order) // batch_lists))):
            yield self.batch(part)


def split_queries(
    lists: ClickLists, *, held_out: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Divide lists into those to learn from and those to stop by; all lists of a query are on one side.

    Queries are drawn by a hash of their numbers, so that a log that grew is divided as it was before, save for a few
    queries: what an earlier model learnt from does not judge a later one that started from it.

    Parameters
    ----------
    lists
        The collapsed log. Lists without clicks are left out: no loss here sees them.
    held_out
        Share of the queries to hold out, 0 to below 1; at least one query is held out if it is not 0 and there are two.
    seed
        Of the draw.

    Returns
    -------
    tuple of arrays
        Numbers of lists, int64: to learn from, and held out.
    """
    clicked = np.flatnonzero(lists.clicks.any(axis=1))
    queries = np.unique(lists.queries[clicked])
    count = min(max(round(held_out * len(queries)), 1), len(queries) - 1) if held_out > 0 and len(queries) > 1 else 0
    drawn = queries[np.argsort(hashed_numbers(queries, seed), kind="stable")[:count]]
    out = np.isin(lists.queries[clicked], drawn)
    return clicked[~out], clicked[out]


def hashed_numbers(numbers: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """Mix bits (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))

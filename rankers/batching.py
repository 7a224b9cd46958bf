"""Batches bounded by tokens, so that a batch of long texts costs no more than a batch of short ones."""

from __future__ import annotations

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], *, max_batch_tokens: int) -> list[list[int]]:
    """Group texts of similar length, such that each batch padded to its longest stays within a budget.

    Parameters
    ----------
    lengths
        Tokens of each text, N of them.
    max_batch_tokens
        Bound on (texts in a batch) * (longest of them). A text longer than this gets a batch of its own.

    Returns
    -------
    list of list of int
        Indexes into `lengths`, each exactly once, shortest texts first.

    Examples
    --------
    >>> token_batches([5, 1, 4, 9], max_batch_tokens=10)
    [[1, 2], [0], [3]]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Lengths ascend, so the text at hand is the longest of its batch.
        if batches and (len(batches[-1]) + 1) * lengths[i] <= max_batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches

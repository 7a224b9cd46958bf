"""Attention over whole trees of packed prompts, for training on CPUs.

Prompts with a beginning in common are a tree. Attending path by path takes many small products, and the gradients of
what paths share are summed once for each; a tree takes two products and a mask.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rankers.llm.packing import Packing

LARGEST_TREE = 1024
"""Rows; what a tree's rows weigh each other with is kept until the backward pass."""


def tree_masks(packing: Packing) -> tuple[torch.Tensor, ...] | None:
    """Say which rows of each tree see which.

    Parameters
    ----------
    packing
        The layout.

    Returns
    -------
    tuple of Tensor or None
        For each tree, in the order of rows, float32 [rows, rows]: 0 where a row sees another, -inf elsewhere. None
        where it would not pay: a tree is larger than `LARGEST_TREE`, or twice what paths take is not enough.
    """
    starts = [segment.rows[0] for segment in packing.segments if len(segment.path) == 1]
    sizes = [stop - start for start, stop in pairwise([*starts, len(packing.ids)])]
    by_path = sum(
        (segment.rows[1] - segment.rows[0]) * sum(stop - start for start, stop in segment.path)
        for segment in packing.segments
    )
    if max(sizes) > LARGEST_TREE or sum(size * size for size in sizes) > 2 * by_path:
        return None
    masks = [torch.full((size, size), -math.inf) for size in sizes]
    for segment in packing.segments:
        tree = bisect_right(starts, segment.rows[0]) - 1
        first, last = (row - starts[tree] for row in segment.rows)
        for start, stop in segment.path:
            masks[tree][first:last, start - starts[tree] : stop - starts[tree]] = 0
        masks[tree][first:last, first:last] = torch.full((last - first, last - first), -math.inf).triu(1)
    return tuple(masks)


def tree_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    masks: Sequence[torch.Tensor],
    *,
    scaling: float | None,
) -> torch.Tensor:
    """Attend within each tree.

    Parameters
    ----------
    query
        [1, H, T, D].
    key
        [1, G, T, D]; H is a multiple of G, and heads next to each other share keys and values.
    value
        [1, G, T, D].
    masks
        As of `tree_masks`; their sizes sum to T.
    scaling
        What products of queries and keys are multiplied by; D^-1/2 where None.

    Returns
    -------
    torch.Tensor
        [1, T, H, D].
    """
    _, heads, _, width = query.shape
    groups = key.shape[1]
    scaled = query[0] * (width**-0.5 if scaling is None else scaling)
    sizes = [len(mask) for mask in masks]
    outputs = []
    pieces = (states.split(sizes, dim=1) for states in (scaled, key[0], value[0]))
    for q, k, v, mask in zip(*pieces, masks, strict=True):
        rows = len(mask)
        scores = torch.bmm(q.reshape(groups, -1, width), k.transpose(1, 2))  # [G, H / G * rows, rows]
        scores = scores.view(groups, -1, rows, rows) + mask.to(scores.dtype)
        weights = scores.softmax(dim=-1).view(groups, -1, rows)
        outputs.append(torch.bmm(weights, v).view(heads, rows, -1))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None]

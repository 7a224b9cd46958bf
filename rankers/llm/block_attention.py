"""Causal attention in blocks of queries, for processors whose bfloat16 is vectors and not matrices.

There scaled dot-product attention of torch takes as long in bfloat16 as in float32; two batched products and a softmax
for every block take 0.4 of that.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from rankers.llm.precision import cpu_has_matrix_unit

BLOCK = 128
"""Queries at a time: their scores stay in cache, and little is computed above the diagonal."""


def blocks_pay(states: torch.Tensor) -> bool:
    """Whether attention over these states is faster in blocks, in training and out of it."""
    return states.device.type == "cpu" and states.dtype == torch.bfloat16 and not _matrix_unit()


def block_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float | None
) -> torch.Tensor:
    """Attend from the last places of a path to themselves and everything before them.

    Parameters
    ----------
    query
        [1, H, R, D], the last R places of the path.
    key
        [1, G, P, D], the whole path; H is a multiple of G, and heads next to each other share keys and values.
    value
        [1, G, P, D].
    scaling
        What products of queries and keys are multiplied by; D^-1/2 where None.

    Returns
    -------
    torch.Tensor
        [1, R, H, D].
    """
    _, heads, rows, width = query.shape
    _, groups, path, _ = key.shape
    shared = heads // groups
    scaled = (query[0] * (width**-0.5 if scaling is None else scaling)).view(groups, shared, rows, width)
    keys, values = key[0].transpose(1, 2).contiguous(), value[0]  # [G, D, P], [G, P, D]
    hidden = torch.full((BLOCK, BLOCK), -math.inf, dtype=query.dtype).triu(1)
    outputs = []
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        seen = path - rows + first + count
        block = scaled[:, :, first : first + count].reshape(groups, shared * count, width)
        scores = torch.bmm(block, keys[:, :, :seen]).view(groups, shared, count, seen)
        scores[..., seen - count :] += hidden[:count, :count]
        weights = scores.softmax(dim=-1).view(groups, shared * count, seen)
        outputs.append(torch.bmm(weights, values[:, :seen]).view(heads, count, width))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None]


@cache
def _matrix_unit() -> bool:
    return cpu_has_matrix_unit()

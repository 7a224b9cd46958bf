"""Many prompts in one row without padding, each shared beginning computed once.

A packed pass computes every linear layer over the distinct tokens of all prompts; attention runs per prompt, over the
whole path of its tokens. Prompts of one template share their instructions, windows of one query share the query too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rankers.llm.block_attention import block_attention, blocks_pay
from rankers.llm.tree_attention import tree_attention
from rankers.protocols import TokenIds

PACKED = "shortlist_packed"
"""Name of the attention implementation below; without a packing it is scaled dot-product attention as it comes."""
MIN_SHARED_TOKENS = 16
"""A shorter beginning in common is computed again: splitting there costs more than it saves."""

Span = tuple[int, int]
"""Rows from (included) to (excluded) of the packed pass."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of their own, and the path they attend to: spans of earlier rows, then their own rows."""

    rows: Span
    path: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Packing:
    """Prompts laid out in one row.

    `ids` and `positions` have one entry per row, `segments` cover all rows, `paths[i]` are the spans of prompt i.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[Segment, ...]
    paths: tuple[tuple[Span, ...], ...]

    def tail(self, prompt: int, count: int) -> list[int]:
        """Rows of the last `count` tokens of a prompt."""
        rows = [row for start, stop in self.paths[prompt] for row in range(start, stop)]
        return rows[len(rows) - count :]

    def tails(self, counts: Sequence[int]) -> list[int]:
        """Rows of the last `counts[i]` tokens of each prompt, prompt after prompt."""
        return [row for i, count in enumerate(counts) for row in self.tail(i, count)]


def pack(prompts: Sequence[TokenIds], *, least_shared: int = MIN_SHARED_TOKENS) -> Packing:
    """Lay prompts out so that a beginning several of them share occurs once.

    Parameters
    ----------
    prompts
        Token ids, at least one token each.
    least_shared
        Beginnings of fewer tokens in common are repeated.

    Returns
    -------
    Packing
        The layout.

    Examples
    --------
    >>> packing = pack([[7] * 20 + [1], [7] * 20 + [2, 3]])
    >>> len(packing.ids), packing.paths
    (23, (((0, 20), (20, 21)), ((0, 20), (21, 23))))
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    shared = [shared_tokens(prompts[a], prompts[b]) for a, b in itertools.pairwise(order)]
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    paths: list[tuple[Span, ...]] = [()] * len(prompts)

    def add(prompt: TokenIds, start: int, stop: int, path: tuple[Span, ...]) -> tuple[Span, ...]:
        if start == stop:
            return path
        rows = (len(ids), len(ids) + stop - start)
        ids.extend(prompt[start:stop])
        positions.extend(range(start, stop))
        segments.append(Segment(rows, (*path, rows)))
        return (*path, rows)

    # Groups of prompts, neighbours in sorted order, that are laid out already up to a depth.
    groups: list[tuple[int, int, int, tuple[Span, ...]]] = [(0, len(order), 0, ())] if order else []
    while groups:
        first, last, depth, path = groups.pop()
        prompt = prompts[order[first]]
        if last - first == 1:
            paths[order[first]] = add(prompt, depth, len(prompt), path)
            continue
        common = min(shared[first : last - 1])
        if common - depth >= least_shared:
            path, depth = add(prompt, depth, common, path), common
        groups.extend((a, b, depth, path) for a, b in _runs(shared, first, last, depth + least_shared))
    return Packing(tuple(ids), tuple(positions), tuple(segments), tuple(paths))


def packed_states(body: Any, packing: Packing, counts: Sequence[int], **options: Any) -> torch.Tensor:
    """Read prompts that were laid out in one row.

    Parameters
    ----------
    body
        The decoder of a ``PreTrainedModel`` whose attention is `PACKED`.
    packing
        The layout.
    counts
        For each prompt, how many of its last positions are wanted.
    **options
        For `packed_attention`.

    Returns
    -------
    torch.Tensor
        Final hidden states at these positions, prompt after prompt, [sum of counts, D].
    """
    device = next(body.parameters()).device
    hidden: torch.Tensor = body(
        torch.tensor([packing.ids], device=device),
        position_ids=torch.tensor([packing.positions], device=device),
        # A mask of four dimensions is taken as it is, so none is built; the packing says what sees what.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        packing=packing,
        use_cache=False,
        **options,
    ).last_hidden_state
    return hidden[0, packing.tails(counts)]


def packed_batches(prompts: Sequence[TokenIds], *, max_batch_tokens: int) -> list[list[int]]:
    """Group prompts such that those with a common beginning meet, each batch within a budget of distinct tokens.

    Parameters
    ----------
    prompts
        Token ids.
    max_batch_tokens
        Bound on the rows of a packed pass. A prompt longer than this gets a batch of its own.

    Returns
    -------
    list of list of int
        Indexes into `prompts`, each exactly once.

    Examples
    --------
    >>> packed_batches([[1] * 30, [2] * 30, [1] * 40], max_batch_tokens=40)
    [[0, 2], [1]]
    """
    batches: list[list[int]] = []
    tokens = common = 0
    for i in sorted(range(len(prompts)), key=lambda i: tuple(prompts[i])):
        if batches:
            # Sharing is counted where the whole batch shares; what parts of it share beyond that is not.
            beginning = min(common, shared_tokens(prompts[batches[-1][-1]], prompts[i]))
            spared = beginning * len(batches[-1]) if beginning >= MIN_SHARED_TOKENS else 0
            if tokens + len(prompts[i]) - spared <= max_batch_tokens:
                batches[-1].append(i)
                tokens += len(prompts[i])
                common = beginning
                continue
        batches.append([i])
        tokens = common = len(prompts[i])
    return batches


def shared_tokens(one: TokenIds, other: TokenIds) -> int:
    """Count the tokens two prompts begin with alike."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))


def _runs(shared: Sequence[int], first: int, last: int, least: int) -> Iterator[Span]:
    """Cut neighbours apart wherever they share fewer than `least` tokens; later runs first, as they go on a stack."""
    cuts = [first, *(i + 1 for i in range(first, last - 1) if shared[i] < least), last]
    yield from reversed(list(itertools.pairwise(cuts)))


def packed_attention(  # noqa: PLR0917
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    tails: Sequence[int] | None = None,
    trees: Sequence[torch.Tensor] | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each path of a packing: causal attention over the path, of which the segment's own rows are kept.

    Where a path is mostly a segment's own rows, the shared ones are attended again: that keeps attention plainly
    causal, which kernels compute in half the time. Where it is mostly shared, or read in blocks, only the segment's own
    rows are attended. With `tails`, the last layer attends from the last `tails[i]` rows of prompt i alone, and has 0
    in all others. With `trees`, the masks of `rankers.llm.tree_attention`, each tree is attended as one.
    """
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    length, scaling = query.shape[2], options.get("scaling")
    if trees is not None and not options.get("dropout") and (sliding_window or length) >= length:
        return tree_attention(query, key, value, trees, scaling=scaling), None

    def attend(own: torch.Tensor, path: tuple[Span, ...]) -> torch.Tensor:
        k, v = _gather(key, path), _gather(value, path)  # [1, heads, path, D]
        rows, places = own.shape[2], k.shape[2]
        window = min(sliding_window or places, places)
        if window == places and not options.get("dropout") and blocks_pay(query):
            return block_attention(own, k, v, scaling=scaling)
        q = own if 2 * rows < places else _gather(query, path)
        plain = window == places == q.shape[2]
        mask = None if plain else _band(q.shape[2], places, window=window, device=q.device)
        output, _ = sdpa_attention_forward(module, q, k, v, mask, is_causal=plain, **options)
        return output[:, -rows:]  # [1, rows, heads, D]

    if tails is not None and _is_last_layer(module):
        output = query.new_zeros(1, length, query.shape[1], value.shape[3])
        for i, count in enumerate(tails):
            read = packing.tail(i, count)
            output[:, read] = attend(query[:, :, read], packing.paths[i])
        return output, None
    return torch.cat([attend(query[:, :, slice(*segment.rows)], segment.path) for segment in packing.segments], 1), None


def _is_last_layer(attention: Any) -> bool:
    return bool(attention.layer_idx == attention.config.num_hidden_layers - 1)


def _gather(states: torch.Tensor, path: tuple[Span, ...]) -> torch.Tensor:
    pieces = [states[:, :, start:stop] for start, stop in path]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def _band(rows: int, path: int, *, window: int, device: torch.device) -> torch.Tensor:
    """Which places of a path its last rows see: each itself and the `window` - 1 before it; bool [1, 1, rows, path]."""
    ones = torch.ones(rows, path, dtype=torch.bool, device=device)
    # Of four dimensions, as transformers regroups heads where there is a single row.
    return (ones.tril(path - rows) & ones.triu(path - rows + 1 - window))[None, None]


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)

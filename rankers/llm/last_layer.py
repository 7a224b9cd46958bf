"""The last layer of a model, computed only at the rows that are read.

Of all other rows it needs keys and values, and nothing else: no later layer looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from operator import attrgetter
from typing import Any

import torch

ROW_BY_ROW = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""Parts of a layer whose result at a row depends on that row alone, as most decoders name them."""


@contextmanager
def last_layer_at(network: Any, rows: Sequence[int]) -> Iterator[None]:
    """Inside, these parts of the last layer are computed at some rows, and are 0 at all others.

    Parameters
    ----------
    network
        A ``PreTrainedModel`` that is called with one row of tokens, [1, T]. One whose layers or their parts have other
        names computes them whole.
    rows
        Positions whose final hidden state is wanted; those of the others are wrong.
    """

    length = 0

    def take(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        nonlocal length
        length = inputs[0].shape[1]
        return inputs[0][:, rows]

    def put(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        whole = output.new_zeros(1, length, output.shape[-1])
        whole[:, rows] = output
        return whole

    with ExitStack() as hooks:
        for name in ROW_BY_ROW:
            with suppress(AttributeError):
                part = attrgetter(name)(network.base_model.layers[-1])
                hooks.enter_context(part.register_forward_pre_hook(take))
                hooks.enter_context(part.register_forward_hook(put))
        yield

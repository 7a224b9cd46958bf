"""How well a network orders held-out lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from rankers.errors import InvalidInputError
from training.data.training_list import TrainingList
from training.listwise.examples import Example, ExampleStream
from training.listwise.network import ListwiseNetwork
from training.listwise.settings import ListwiseSettings

DEPTH = 10


def dev_examples(lists: Sequence[TrainingList], stream: ExampleStream, settings: ListwiseSettings) -> list[Example]:
    """Show held-out lists, each once and in an order that stays the same for all measurements.

    Parameters
    ----------
    lists
        Those whose targets are all equal measure nothing and are left out.
    stream
        Writes the prompts.
    settings
        How many lists, evenly spread over them, and how many candidates, the first of each list.

    Returns
    -------
    list of Example
        At most `settings.dev_lists`.

    Raises
    ------
    InvalidInputError
        If no list measures anything.
    """
    size = settings.max_candidates
    measuring = [item for item in lists if len(set(item.targets[:size])) > 1]
    if not measuring:
        raise InvalidInputError(
            f"none of {len(lists)} held-out lists has two different targets among its first {size}; give others with "
            "--dev"
        )
    random = np.random.default_rng(settings.seed)
    return [
        stream.render(item, [int(i) for i in random.permutation(min(size, len(item.documents)))])
        for item in measuring[:: math.ceil(len(measuring) / settings.dev_lists)]
    ]


def measure(network: ListwiseNetwork, examples: Sequence[Example], *, lists_per_pass: int) -> float:
    """Mean nDCG@10 of one window per list, gain linear in the target above the least of its list.

    Parameters
    ----------
    network
        Put into evaluation mode, and back into training mode afterwards.
    examples
        From `dev_examples`.
    lists_per_pass
        Examples padded into one forward pass.

    Returns
    -------
    float
        In [0, 1].
    """
    network.eval()
    values = []
    for start in range(0, len(examples), lists_per_pass):
        batch = examples[start : start + lists_per_pass]
        for example, logits in zip(batch, network.identifier_logits(batch), strict=True):
            values.append(ndcg(logits, torch.tensor(example.targets)))
    network.train()
    return float(np.mean(values))


def ndcg(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """nDCG@10 of one list, float [L] both; 0 where a score is not finite, else 1 where all targets are equal.

    >>> ndcg(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    1.0
    """
    if not scores.isfinite().all():
        return 0.0  # of a model that has diverged; sorting would leave the order that came in
    gains = targets - targets.min()
    discounts = 1 / torch.log2(torch.arange(2, min(DEPTH, len(gains)) + 2))
    ideal = (gains.sort(descending=True).values[:DEPTH] * discounts).sum()
    order = scores.argsort(descending=True, stable=True)
    return float((gains[order][:DEPTH] * discounts).sum() / ideal) if ideal > 0 else 1.0

"""The dual learning algorithm as public toolboxes feed it: session by session, through Python lists.

A reproduction of the style of ULTRA's PyTorch version (Tran et al., "ULTRA: an unbiased learning to rank algorithm
toolbox", CIKM 2021), written for this comparison: each step appends the sessions of a batch to Python lists one
document at a time, pads them, turns them into one array per position in a dictionary, gathers features per position,
and runs the scorer over the positions put together; the propensity side is a small linear layer per position.
"""

from __future__ import annotations

import itertools
import random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.ultr.lists import ClickLists


class SessionFeed:
    """Makes the dictionary of arrays that a step is fed with."""

    def __init__(self, lists: ClickLists, list_numbers: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]) -> None:
        self._features = [[row.tolist() for row in lists.features[rows[rows >= 0]]] for rows in lists.rows]
        self._list_numbers = list_numbers.tolist()
        self._clicks = clicked.astype(float).tolist()
        self._places = lists.rows.shape[1]
        self._width = lists.features.shape[1]
        self._random = random.Random(0)

    def batch(self, size: int) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
        """Draw sessions."""
        letor_features: list[list[float]] = []
        docid_inputs: list[list[int]] = []
        click_labels: list[list[float]] = []
        for _ in range(size):
            session = self._random.randrange(len(self._list_numbers))
            documents = self._features[self._list_numbers[session]]
            base = len(letor_features)
            letor_features.extend(documents)
            docid_inputs.append([base + place if place < len(documents) else -1 for place in range(self._places)])
            click_labels.append([self._clicks[session][place] for place in range(self._places)])
        padding = [0.0] * self._width
        letor_features.append(padding)
        for docids in docid_inputs:
            for place, docid in enumerate(docids):
                if docid < 0:
                    docids[place] = len(letor_features) - 1
        feed: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]] = {
            "letor_features": np.array(letor_features, dtype=np.float32)
        }
        for place in range(self._places):
            feed[f"docid_input{place}"] = np.array([docid_inputs[at][place] for at in range(size)], dtype=np.int64)
            feed[f"label{place}"] = np.array([click_labels[at][place] for at in range(size)], dtype=np.float32)
        return feed


class DualLearner:
    """Scorer and propensities, each with its optimiser."""

    def __init__(self, width: int, places: int, hidden: tuple[int, ...] = (64, 32)) -> None:
        layers: list[nn.Module] = []
        sizes = (width, *hidden)
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.BatchNorm1d(inputs), nn.Linear(inputs, outputs), nn.ELU()]
        self.scorer = nn.Sequential(*layers, nn.BatchNorm1d(sizes[-1]), nn.Linear(sizes[-1], 1))
        self.positions = nn.ModuleList(nn.Sequential(nn.Linear(1, 1), nn.ELU()) for _ in range(places))
        self._optimisers = [torch.optim.Adagrad(part.parameters(), lr=0.05) for part in (self.scorer, self.positions)]
        self._places = places

    def step(self, feed: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]) -> float:
        """Learn from one batch."""
        letor = torch.from_numpy(feed["letor_features"])
        docids = [torch.from_numpy(feed[f"docid_input{place}"]) for place in range(self._places)]
        labels = torch.stack([torch.from_numpy(feed[f"label{place}"]) for place in range(self._places)], dim=1)
        inputs = torch.cat([torch.index_select(letor, 0, docid) for docid in docids], dim=0)
        scores = torch.cat(torch.split(self.scorer(inputs), len(labels), dim=0), dim=1)
        ones = torch.ones(len(labels), 1)
        propensity = torch.cat([position(ones) for position in self.positions], dim=1)
        with torch.no_grad():
            position_weights = _weights(propensity)
            relevance_weights = _weights(scores)
        loss = _loss(scores, labels, position_weights) + _loss(propensity, labels, relevance_weights)
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        loss.backward()
        for part in (self.scorer, self.positions):
            nn.utils.clip_grad_norm_(part.parameters(), 5.0)
        for optimiser in self._optimisers:
            optimiser.step()
        return float(loss.detach())


def _weights(logits: Tensor) -> Tensor:
    chances = torch.softmax(logits, dim=-1)
    return torch.stack([chances[:, 0] / chances[:, place] for place in range(logits.shape[1])], dim=1)


def _loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    weighted = (labels + 1e-7) * weights
    share = weighted / weighted.sum(dim=1, keepdim=True)
    per_list = -(share * torch.log_softmax(logits, dim=-1)).sum(dim=1)
    return (per_list * weighted.sum(dim=1)).sum() / weighted.sum()

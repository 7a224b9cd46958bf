"""Judged lists with a production ranker and simulated users: what the benchmarks of unbiased learners run in."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.ultr.lists import ClickLists
from training.ultr.simulate import ClickModel, attraction, fit_production, shown_lists, simulate_clicks
from training.ultr.svmlight import JudgedLists, read_svmlight

DATASETS = ("lightgbm-lambdarank", "mq2007-agg", "mslr-web-msn1-5k")
DEPTH = 10


@dataclass(frozen=True)
class World:
    """Queries to learn from and others to measure on, and what production scores on both."""

    train: JudgedLists
    test: JudgedLists
    shown: ClickLists
    production: npt.NDArray[np.float64]
    """Scores of the test documents."""

    def clicks(self, users: ClickModel, *, sessions: int, seed: int, patterns: bool = True) -> ClickLists:
        """What users leave on the lists that production shows."""
        return simulate_clicks(
            self.shown, attraction(self.train.labels), users, sessions=sessions, seed=seed, patterns=patterns
        )

    def judgements(self) -> ClickLists:
        """All documents of the training queries with labels as gains in place of clicks: full information."""
        longest = int(np.diff(self.train.starts()).max())
        lists = shown_lists(self.train, np.zeros(len(self.train.labels)), places=longest)
        gains = np.where(lists.mask, 2 ** self.train.labels[np.maximum(lists.rows, 0)] - 1, 0)
        return ClickLists(
            lists.features,
            lists.feature_names,
            lists.rows,
            lists.queries,
            lists.slots,
            shown=np.full(len(lists.rows), gains.max(), dtype=np.int64),
            clicks=gains.astype(np.int64),
        )


@cache
def read_dataset(data: Path, name: str) -> tuple[JudgedLists, JudgedLists]:
    """Queries to learn from and queries to measure on."""
    folder = data / name
    match name:
        case "lightgbm-lambdarank":
            return tuple(  # type: ignore[return-value]
                read_svmlight(folder / f"rank.{part}", group_sizes=folder / f"rank.{part}.query", features=300)
                for part in ("train", "test")
            )
        case "mq2007-agg":
            return read_svmlight(*(folder / f"S{part}.txt" for part in (1, 2, 3))), read_svmlight(folder / "S5.txt")
        case _:
            train, test = (
                read_svmlight(folder / f"msn1.fold1.{part}.5k.txt", features=136) for part in ("train", "test")
            )
            return train, test


def weak_world(data: Path, name: str, *, seed: int) -> World:
    """Production is a linear ranker learnt from 1 % of the queries, at least three."""
    return _world(data, name, lambda train, test: _linear(train, test, share=0.01, seed=seed))


def strong_world(data: Path, name: str, *, seed: int) -> World:
    """Production is a linear ranker learnt from the labels of all queries."""
    return _world(data, name, lambda train, test: _linear(train, test, share=1.0, seed=seed))


def oracle_world(data: Path, name: str, *, seed: int) -> World:
    """Production knows the labels but for a little noise."""
    rng = np.random.default_rng(seed)

    def scores(train: JudgedLists, test: JudgedLists) -> Scores:
        found = [part.labels + rng.normal(scale=0.5, size=len(part.labels)) for part in (train, test)]
        return found[0], found[1]

    return _world(data, name, scores)


Scores = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _linear(train: JudgedLists, test: JudgedLists, *, share: float, seed: int) -> Scores:
    ranker = fit_production(train, share=share, seed=seed)
    return ranker.score(train.features), ranker.score(test.features)


def _world(data: Path, name: str, production: Callable[[JudgedLists, JudgedLists], Scores]) -> World:
    train, test = read_dataset(data, name)
    of_train, of_test = production(train, test)
    return World(train, test, shown_lists(train, of_train, places=DEPTH), of_test)


def ndcg(judged: JudgedLists, scores: npt.NDArray[np.float64], *, exponential: bool = False) -> float:
    """Mean nDCG@10 over the queries that have something to find."""
    gains = (2.0**judged.labels - 1 if exponential else judged.labels).astype(np.float64)
    values = []
    for start, end in itertools.pairwise(judged.starts()):
        best = np.sort(gains[start:end])[::-1][:DEPTH]
        if best[0]:
            discounts = 1 / np.log2(np.arange(len(best)) + 2)
            order = np.argsort(-scores[start:end], kind="stable")[:DEPTH]
            values.append(gains[start:end][order] @ discounts / (best @ discounts))
    return float(np.mean(values))

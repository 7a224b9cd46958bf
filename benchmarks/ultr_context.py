"""Examination that depends on the page: DLA by slot against DLA that knows the context.

    python -m benchmarks.ultr_context path/to/data [--seeds 8]

The worlds of `benchmarks.ultr quality` on lightgbm-lambdarank, with two more features, drawn at random: half of the
queries are quick (the curve to the power of 1.5, of others to that of .5), and three in ten documents are tall, which
halves the examination of the next place. All learners see both as features. The error is that of the examination of
places against the most examined one of their list, mean over all places of the log.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.ultr_worlds import ndcg, weak_world
from training.ultr.context import Context, ContextDla, examination_of_places
from training.ultr.dla import Dla
from training.ultr.ipw import Ipw, Naive
from training.ultr.learner import FittedRanker
from training.ultr.lists import ClickLists
from training.ultr.simulate import attraction, examination_curve, simulate_clicks_by_place
from training.ultr.svmlight import JudgedLists

CONTEXT = Context(of_list=("quick",), of_previous=("tall",))
LEAST = 1e-6
LEARNERS: dict[str, Callable[[ClickLists, int], FittedRanker]] = {
    "naive": lambda lists, seed: Naive().fit(lists, seed=seed),
    "DLA by slot": lambda lists, seed: Dla().fit(lists, seed=seed),
    "DLA, number of results only": lambda lists, seed: ContextDla().fit(lists, seed=seed),
    "DLA in context": lambda lists, seed: ContextDla(CONTEXT).fit(lists, seed=seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for seed in range(options.seeds):
        world = weak_world(options.data, "lightgbm-lambdarank", seed=seed)
        train, test = marked(world.train, seed), marked(world.test, seed + 1000)
        shown = replace(world.shown, features=train.features, feature_names=train.feature_names)
        truth = looked_at(shown)
        lists = simulate_clicks_by_place(shown, attraction(train.labels), truth, sessions=options.sessions, seed=seed)
        for name, learn in LEARNERS.items():
            fitted = learn(lists, seed)
            error = np.nan
            if fitted.propensities is not None:
                error = float(np.abs(examination_of_places(fitted, lists) - truth)[lists.mask].mean())
            found[name].append((error, ndcg(test, fitted.score(test.features))))
        by_place = replace(lists, slots=np.arange(lists.rows.size).reshape(lists.rows.shape))
        fitted = Ipw(truth.reshape(-1).clip(LEAST)).fit(by_place, seed=seed)
        found["IPW, true examination"].append((0.0, ndcg(test, fitted.score(test.features))))
    print("| learner | seeds | error of examination | nDCG@10, linear |\n| --- | --- | --- | --- |")
    for name, values in found.items():
        errors, quality = ([each[number] for each in values] for number in (0, 1))
        print(f"| {name} | {len(values)} | {spread(errors)} | {spread(quality)} |")


def marked(judged: JudgedLists, seed: int) -> JudgedLists:
    """The same with tall documents and quick queries."""
    rng = np.random.default_rng(seed)
    tall = rng.random(len(judged.labels)) < 0.3
    quick = (rng.random(len(judged.query_ids)) < 0.5)[judged.queries]
    features = np.column_stack([judged.features, tall, quick]).astype(np.float32)
    return replace(judged, features=features, feature_names=(*judged.feature_names, "tall", "quick"))


def looked_at(lists: ClickLists) -> npt.NDArray[np.float64]:
    """Chance that each place is looked at, against the most examined one of its list; 0 after the end of a list."""
    tall, quick = (lists.features[:, column][np.maximum(lists.rows, 0)] > 0 for column in (-2, -1))
    pushed = np.concatenate([np.zeros((len(tall), 1), dtype=np.bool_), tall[:, :-1]], axis=1)
    curve = examination_curve(lists.rows.shape[1])[None]
    chances = curve ** np.where(quick, 1.5, 0.5) * np.where(pushed, 0.5, 1.0) * lists.mask
    return np.asarray(chances / chances.max(axis=1, keepdims=True), dtype=np.float64)


def spread(values: list[float]) -> str:
    return "" if np.isnan(values[0]) else f"{mean(values):.4f} ({stdev(values) if len(values) > 1 else 0.0:.4f})"


if __name__ == "__main__":
    main()

"""Propensities by every method from one simulated log, with bands, in one plot.

    python -m benchmarks.propensities path/to/lightgbm-lambdarank --plot propensities.svg

Users click position-based on judged lists. Three production rankers, each learnt from three queries, take turns, and a
tenth of the sessions sees the list of one of them shuffled. Randomisation sees those sessions, every other method the
lists of the three rankers, and so does each method again with only one of them. Prints the mean absolute error of each
curve, and of how many slots its band of 95 % holds the truth.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.clicks.models.position import fit_position_based
from training.clicks.resampling import Unit
from training.propensity.curves import Estimator, PropensityCurve, plot_curves, propensity_curve, relative
from training.propensity.harvesting import all_pairs_propensities
from training.propensity.randomisation import shuffled_propensities
from training.ultr.dla import Dla
from training.ultr.lists import ClickLists
from training.ultr.simulate import (
    PositionBased,
    attraction,
    examination_curve,
    fit_production,
    shown_lists,
    simulate_clicks,
)
from training.ultr.svmlight import read_svmlight

RANKERS = 3
SHUFFLES = 20
"""Random orders of each query's list."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sessions", type=int, default=200_000)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--learner-replicates", type=int, default=20, help="for DLA, which trains a ranker each time")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    truth = examination_curve()
    served, one, shuffled = logs(options.data, options.sessions, truth)
    methods: list[tuple[str, ClickLists, Estimator, int]] = [
        ("randomisation, 10 % of sessions", shuffled, shuffled_propensities, options.replicates),
        ("AllPairs, 3 rankers", served, all_pairs_propensities, options.replicates),
        ("DLA, 3 rankers", served, dual_learning, options.learner_replicates),
        ("PBM by EM, 3 rankers", served, position_based, options.replicates),
        ("clicks by slot, 3 rankers", served, shuffled_propensities, options.replicates),
        ("AllPairs, 1 ranker", one, all_pairs_propensities, options.replicates),
        ("DLA, 1 ranker", one, dual_learning, options.learner_replicates),
        ("PBM by EM, 1 ranker", one, position_based, options.replicates),
    ]
    print("| method | sessions | mean absolute error | truth in band | s |")
    print("| --- | --- | --- | --- | --- |")
    curves: list[PropensityCurve] = []
    for name, lists, estimate, replicates in methods:
        started = time.perf_counter()
        try:
            curve = propensity_curve(name, lists, estimate, unit=Unit.SESSIONS, replicates=replicates)
        except InvalidInputError as error:
            print(f"| {name} | {lists.sessions:,} | {error} | | |")
            continue
        seconds = time.perf_counter() - started
        expected = relative(truth)[1:]
        error_of_slots = np.abs(curve.estimate[1:] - expected).mean()
        inside = ((curve.low[1:] <= expected) & (expected <= curve.high[1:])).sum()
        print(f"| {name} | {lists.sessions:,} | {error_of_slots:.4f} | {inside} of 9 | {seconds:.1f} |", flush=True)
        if not name.startswith("clicks"):
            curves.append(curve)
    if options.plot:
        plot_curves([curve for curve in curves if "1 ranker" not in curve.name], options.plot, truth=truth)


def logs(data: Path, sessions: int, truth: npt.NDArray[np.float64]) -> tuple[ClickLists, ClickLists, ClickLists]:
    """What three rankers showed, what one of them showed, and the shuffled sessions."""
    judged = read_svmlight(data / "rank.train", group_sizes=data / "rank.train.query")
    users, attractive = PositionBased(truth), attraction(judged.labels)
    parts = []
    for seed in range(RANKERS):
        scores = fit_production(judged, seed=seed).score(judged.features)
        shown = shown_lists(judged, scores)
        parts.append(shown.take(np.flatnonzero(shown.mask.all(axis=1))))
    orders = np.random.default_rng(0).permuted(np.tile(parts[0].rows, (SHUFFLES, 1)), axis=1)
    together, mixed = repeated(parts[0], np.concatenate([part.rows for part in parts])), repeated(parts[0], orders)
    return (
        simulate_clicks(together, attractive, users, sessions=sessions, seed=1),
        simulate_clicks(parts[0], attractive, users, sessions=sessions, seed=2),
        simulate_clicks(mixed, attractive, users, sessions=sessions // 10, seed=3),
    )


def repeated(lists: ClickLists, rows: npt.NDArray[np.int64]) -> ClickLists:
    """Lists of the same queries with these rows, some multiple of as many."""
    times = len(rows) // len(lists.rows)
    return replace(
        lists,
        rows=rows,
        queries=np.tile(lists.queries, times),
        slots=np.tile(lists.slots, (times, 1)),
        shown=np.zeros(len(rows), dtype=np.int64),
        clicks=np.zeros(rows.shape, dtype=np.int64),
    )


def dual_learning(lists: ClickLists) -> npt.NDArray[np.float64]:
    found = Dla().fit(lists).propensities
    assert found is not None
    return found


def position_based(lists: ClickLists) -> npt.NDArray[np.float64]:
    return fit_position_based(lists, rounds=500).examination


if __name__ == "__main__":
    main()

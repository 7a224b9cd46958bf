"""How well rankers learn from biased clicks, and whether the loop notices where they cannot.

    python -m benchmarks.ultr quality path/to/data --out quality.jsonl
    python -m benchmarks.ultr stress path/to/data --out stress.jsonl

The folder holds lightgbm-lambdarank, mq2007-agg and mslr-web-msn1-5k. Users click position-based on the top ten of a
weak production ranker, a linear one learnt from three queries or one in a hundred; rankers are measured on other
queries. What the file already has is not run again; the table is that of the whole file. ``stress`` is explained in
`benchmarks.ultr_stress`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import operator
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeAlias

import numpy as np
import torch

from benchmarks.ultr_stress import CASES, run_case
from benchmarks.ultr_worlds import DATASETS, World, ndcg, weak_world
from training.ultr.dla import Dla
from training.ultr.em import RegressionEm
from training.ultr.ipw import Ipw, Naive
from training.ultr.learner import Learner
from training.ultr.lightgbm_learners import LightGbmDla, LightGbmIpw, LightGbmPosition, TreeSettings
from training.ultr.lists import ClickLists
from training.ultr.pairwise import PairwiseDebiased
from training.ultr.simulate import PositionBased, examination_curve
from training.ultr.xgboost_learner import XgboostUnbiased

CURVE = examination_curve()
PRODUCTION, NAIVE, FULL, FULL_TREES = "production", "naive", "full information", "full information, trees"
TREES = TreeSettings(threads=1)
LIBRARY_TREES = TreeSettings(rounds=100, leaves=15, feature_share=1.0, threads=1)
LEARNERS: dict[str, Callable[[], Learner]] = {
    NAIVE: Naive,
    "DLA, tied learning rates": lambda: Dla(examination="gradient", examination_rate=1e-3),
    "DLA": Dla,
    "IPW, true propensities": lambda: Ipw(CURVE),
    "regression-EM": RegressionEm,
    "pairwise": PairwiseDebiased,
    "LightGBM DLA": lambda: LightGbmDla(trees=TREES),
    "LightGBM IPW, true propensities": lambda: LightGbmIpw(CURVE, trees=TREES),
    "LightGBM position": lambda: LightGbmPosition(trees=LIBRARY_TREES),
    "XGBoost unbiased": lambda: XgboostUnbiased(trees=LIBRARY_TREES),
}
BOUNDS: dict[str, Callable[[], Learner]] = {FULL: Naive, FULL_TREES: lambda: LightGbmIpw(None, trees=TREES)}
WITHOUT_CLICKS = (PRODUCTION, *BOUNDS)
BY_SESSION = {"LightGBM position", "XGBoost unbiased"}
"""Their cost grows with distinct click patterns, so only up to this many sessions are run:"""
MOST_PATTERNS = 100_000


Line: TypeAlias = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "stress"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one for each learner and seed")
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--sessions", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = read_lines(options.out)
    done = {key_of(line) for line in lines}
    for seed, dataset in itertools.product(range(options.seeds), options.datasets):
        todo = (
            stress_lines(options.data, dataset, seed, done)
            if options.what == "stress"
            else quality_lines(options.data, dataset, options.sessions, seed, done)
        )
        for line in todo:
            lines.append(line)
            with options.out.open("a") as out:
                out.write(json.dumps(line) + "\n")
    print_stress(lines) if options.what == "stress" else print_quality(lines)


def read_lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key_of(line: Line) -> tuple[object, ...]:
    return tuple(line.get(name) for name in ("dataset", "sessions", "learner", "case", "seed"))


def quality_lines(
    data: Path, dataset: str, counts: Sequence[int], seed: int, done: set[tuple[object, ...]]
) -> Iterator[Line]:
    wanted: list[Line] = [
        {"dataset": dataset, "sessions": sessions, "learner": name, "seed": seed}
        for sessions, names in ((0, WITHOUT_CLICKS), *((count, tuple(LEARNERS)) for count in counts))
        for name in names
        if sessions <= MOST_PATTERNS or name not in BY_SESSION
    ]
    todo = [key for key in wanted if key_of(key) not in done]
    if not todo:
        return
    world = weak_world(data, dataset, seed=seed)
    for sessions, keys in itertools.groupby(todo, key=operator.itemgetter("sessions")):
        users = PositionBased(CURVE)
        shown = world.clicks(users, sessions=sessions, seed=seed) if sessions else world.judgements()
        for key in keys:
            yield key | learn_and_measure(world, shown, key["learner"], seed)


def learn_and_measure(world: World, lists: ClickLists, name: str, seed: int) -> Line:
    started = time.process_time()
    scores, error = world.production, None
    if name != PRODUCTION:
        fitted = (LEARNERS | BOUNDS)[name]().fit(lists, seed=seed)
        scores = fitted.score(world.test.features)
        if fitted.propensities is not None and len(fitted.propensities) == len(CURVE):
            error = float(np.abs(fitted.propensities - CURVE / CURVE[0]).mean())
    return {
        "ndcg": ndcg(world.test, scores),
        "ndcg_exponential": ndcg(world.test, scores, exponential=True),
        "propensity_error": error,
        "seconds": time.process_time() - started,
    }


def stress_lines(data: Path, dataset: str, seed: int, done: set[tuple[object, ...]]) -> Iterator[Line]:
    for case in CASES:
        if key_of({"dataset": dataset, "case": case, "seed": seed}) not in done:
            yield run_case(data, dataset, case, seed)


def print_quality(lines: list[Line]) -> None:
    found: dict[tuple[str, int, str], dict[int, Line]] = defaultdict(dict)
    for line in lines:
        found[line["dataset"], line["sessions"], line["learner"]][line["seed"]] = line
    print("| data | sessions | learner | seeds | nDCG@10, linear | exponential | of the gap | curve error | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (dataset, sessions, learner), of_seeds in sorted(found.items(), key=_order):
        values = list(of_seeds.values())
        errors = [line["propensity_error"] for line in values if line["propensity_error"] is not None]
        naive, full = (mean_of(found[dataset, *key]) for key in ((sessions, NAIVE), (0, FULL)))
        share = (mean_of(of_seeds) - naive) / (full - naive) if sessions else float("nan")
        print(
            f"| {dataset} | {sessions:,} | {learner} | {len(values)} | {spread([v['ndcg'] for v in values])} | "
            f"{spread([v['ndcg_exponential'] for v in values])} | {share:.2f} | "
            f"{spread(errors) if errors else ''} | {mean(v['seconds'] for v in values):.2f} |"
        )


def _order(item: tuple[tuple[str, int, str], object]) -> tuple[str, int, int]:
    (dataset, sessions, learner), _ = item
    return dataset, sessions, [*WITHOUT_CLICKS, *LEARNERS].index(learner)


def mean_of(of_seeds: dict[int, Line]) -> float:
    return mean(line["ndcg"] for line in of_seeds.values()) if of_seeds else float("nan")


def spread(values: list[float]) -> str:
    return f"{mean(values):.4f} ({stdev(values) if len(values) > 1 else 0.0:.4f})"


def print_stress(lines: list[Line]) -> None:
    found = defaultdict(list)
    for line in lines:
        found[line["dataset"], line["case"]].append(line)
    print("| data | case | seeds | production | naive | DLA | after the gate | promoted | naive | trust | holds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (dataset, case), of_seeds in sorted(found.items()):
        columns = [mean(line[name] for line in of_seeds) for name in ("production", "naive", "dla", "gated")]
        production, naive, _, gated = columns
        numbers = " | ".join(f"{value:.4f}" for value in columns)
        counts = (sum(bool(line[name]) for line in of_seeds) for name in ("promoted", "reasons", "trusted"))
        holds = gated >= naive - 0.005 and gated >= production
        verdict = f"{' | '.join(map(str, counts))} | {'yes' if holds else 'no'}"
        print(f"| {dataset} | {case} | {len(of_seeds)} | {numbers} | {verdict} |")


if __name__ == "__main__":
    main()

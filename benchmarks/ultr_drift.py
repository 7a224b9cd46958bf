"""How soon a change of where people look is seen, and how soon the curve follows.

    python -m benchmarks.ultr_drift path/to/data [--eta 0.3] [--seeds 5]

lightgbm-lambdarank, the top ten of a weak production ranker, position-based clicks. After 100,000 sessions the
examination curve changes from `EXAMINED` to its power of `--eta`. From then on, every 2,000 or 10,000 sessions:

- what the loop checks over the last 100,000 sessions: whether the curve of the latest 30 % is that of the rest, and
  whether the curve that a candidate learns from the rest is the one that was live before the change;
- the curve that DLA learns anew from the last 10,000, 20,000 or 100,000 sessions;
- the curve of a training that goes on by 256 sessions a step and never begins anew.

Prints how many sessions after the change a check spoke, or a curve was within .05 or .025 of the new one (mean absolute
error), and stayed so on the next look.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.ultr_worlds import World, weak_world
from rankers.ltr.networks import Normaliser, RankingNetwork, Scorer
from training.loop.gate import check_curve, check_drift
from training.loop.settings import ClickGate
from training.ultr.batch import BatchSource
from training.ultr.correction import ClickCorrection
from training.ultr.dla import ClosedFormExamination, Dla, GradientExamination
from training.ultr.drift import curve_drift
from training.ultr.examination import slot_groups
from training.ultr.fitting import NetworkSettings, NetworkTrainer
from training.ultr.lists import ClickLists
from training.ultr.simulate import PositionBased, examination_curve

BEFORE, PART, FIT_EVERY, HELD_OUT, BATCH = 100_000, 2_000, 5, 0.3, 256
RECENT = (10_000, 20_000, 100_000)
LIMITS = (0.05, 0.025)
STREAMS: dict[str, Callable[[npt.NDArray[np.int64]], ClickCorrection]] = {
    "256 sessions a step, closed form": ClosedFormExamination,
    "256 sessions a step, Adam .05": GradientExamination,
}
GATE = ClickGate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--eta", type=float, default=0.3, help="the curve after the change")
    parser.add_argument("--after", type=int, default=100_000, help="sessions after the change")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(options.seeds):
        world = weak_world(options.data, "lightgbm-lambdarank", seed=seed)
        truth = examination_curve(eta=options.eta) / examination_curve(eta=options.eta)[0]
        for name, sessions in {
            **looks(world, options.eta, options.after, truth, seed),
            **streams(world, options.eta, options.after, truth, seed),
        }.items():
            found[name].append(sessions)
    print("| what | seeds | of them never | sessions after the change, median (range) |\n| --- | --- | --- | --- |")
    for name, values in found.items():
        never = sum(np.isinf(values))
        print(f"| {name} | {len(values)} | {never} | {median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f}) |")


def looks(world: World, eta: float, after: int, truth: npt.NDArray[np.float64], seed: int) -> dict[str, float]:
    """Sessions after the change at which the loop's checks spoke, and curves learnt anew were close."""
    before = BEFORE // PART
    parts = [*draw(world, 1.0, BEFORE, PART, seed), *draw(world, eta, after, PART, seed + 1000)]
    live = Dla().fit(together(parts[:before]), seed=seed)
    scores, known = live.score(world.shown.features), live.propensities
    assert known is not None

    def drifted(at: int) -> bool:
        cut = at - round(before * HELD_OUT)
        drift = curve_drift(together(parts[at - before : cut]), together(parts[cut:at]), scores, seed=seed)
        return not check_drift(drift, GATE).holds

    def moved(at: int) -> bool:
        candidate = Dla().fit(together(parts[at - before : at - round(before * HELD_OUT)]), seed=seed)
        return not check_curve(candidate.propensities, known, GATE).holds

    def errors(sessions: int) -> Callable[[int], float]:
        return lambda at: error(Dla().fit(together(parts[at - sessions // PART : at]), seed=seed).propensities, truth)

    found = {
        "loop: examination not steady within the log": PART * first_of(map(drifted, range(before, len(parts) + 1))),
        "loop: examination not as before": FIT_EVERY
        * PART
        * first_of(map(moved, range(before, len(parts) + 1, FIT_EVERY))),
    }
    for sessions in RECENT:
        values = list(map(errors(sessions), range(before, len(parts) + 1, FIT_EVERY)))
        for limit in LIMITS:
            name = f"DLA on the last {sessions:,} sessions within {limit}"
            found[name] = FIT_EVERY * PART * first_of(stays(values, limit))
    return found


def streams(world: World, eta: float, after: int, truth: npt.NDArray[np.float64], seed: int) -> dict[str, float]:
    """Sessions after the change at which curves that are trained on and on were close."""
    found = {}
    for name, correction in STREAMS.items():
        normaliser = Normaliser.fit(world.shown.features)
        network = RankingNetwork(normaliser, Scorer(normaliser.width, (64, 32), seed=seed))
        trainer = NetworkTrainer(network, correction(slot_groups(world.shown)), NetworkSettings(), seed=seed)
        features = network.normalised(world.shown.features)
        values = []
        for number, power in enumerate((1.0, eta)):
            for part in draw(world, power, (BEFORE, after)[number], BATCH, seed + 2000 + number):
                source = BatchSource(part, features)
                trainer.step(source.batch(torch.from_numpy(np.flatnonzero(part.clicks.any(axis=1)))))
                if number:
                    values.append(error(trainer.correction.propensities(), truth))
        for limit in LIMITS:
            found[f"{name}, within {limit}"] = BATCH * (1 + first_of(stays(values, limit)))
    return found


def draw(world: World, eta: float, sessions: int, size: int, seed: int) -> Iterator[ClickLists]:
    """Sessions in parts of a size, each collapsed."""
    users = PositionBased(examination_curve(eta=eta))
    for number in range(sessions // size):
        yield world.clicks(users, sessions=size, seed=seed * 10_000 + number, patterns=False)


def together(parts: list[ClickLists]) -> ClickLists:
    """One log of the same lists."""
    shown, clicks = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("shown", "clicks"))
    return replace(parts[0], shown=shown, clicks=clicks)


def error(curve: npt.NDArray[np.float64] | None, truth: npt.NDArray[np.float64]) -> float:
    assert curve is not None
    return float(np.abs(curve - truth).mean())


def stays(errors: list[float], limit: float) -> Iterator[bool]:
    """Whether each look and the next one, if there is one, are within a limit."""
    for one, following in itertools.pairwise([*errors, errors[-1]]):
        yield max(one, following) < limit


def first_of(happened: Iterable[bool]) -> float:
    """At which look something happened first; infinite if never. The first look is that at the moment of the change."""
    return next((float(number) for number, value in enumerate(happened) if value), math.inf)


if __name__ == "__main__":
    main()

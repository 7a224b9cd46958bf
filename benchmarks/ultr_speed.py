"""What learning from clicks costs, in seconds and in memory.

    python -m benchmarks.ultr_speed collapse [--sessions 10000 100000 1000000 10000000]
    python -m benchmarks.ultr_speed sessions

The log is made up: 2,000 lists of ten documents with 136 features, position-based clicks. ``collapse`` counts sessions
and trains DLA on the counts, each size in a process of its own; drawing the clicks is not part of the time.
``sessions`` feeds single sessions, 256 a step, to the same training step, and to a reproduction of the way public
toolboxes do it (`benchmarks.ultr_baseline`); they take turns, clicks are drawn beforehand for both. One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from benchmarks.ultr_baseline import DualLearner, SessionFeed
from rankers.ltr.networks import Normaliser, RankingNetwork, Scorer
from training.evaluation.memory import peak_memory_mib
from training.ultr.batch import BatchSource
from training.ultr.dla import ClosedFormExamination, Dla
from training.ultr.examination import slot_groups
from training.ultr.fitting import NetworkSettings, NetworkTrainer
from training.ultr.lists import ClickLists
from training.ultr.sessions import SessionCounter
from training.ultr.simulate import PositionBased, examination_curve

LISTS, PLACES, FEATURES = 2_000, 10, 136
PART = 100_000
BATCH = 256
USERS = PositionBased(examination_curve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("collapse", "sessions", "one"))
    parser.add_argument("--sessions", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "one":
        print(json.dumps(collapse_and_train(options.sessions[0])))
    elif options.what == "collapse":
        print("| sessions | CPU s to count | CPU s to train | together | peak MiB |\n| --- | --- | --- | --- | --- |")
        for sessions in options.sessions:
            command = [sys.executable, "-m", "benchmarks.ultr_speed", "one", "--sessions", str(sessions)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            both = found["count"] + found["train"]
            seconds = f"{found['count']:.2f} | {found['train']:.2f} | {both:.2f}"
            print(f"| {sessions:,} | {seconds} | {found['peak_mib']:,.0f} |", flush=True)
    else:
        compare_sessions(options.steps, options.repeats)


def make_lists() -> tuple[ClickLists, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Lists nobody has seen, and how attractive their documents are, float64 [LISTS * PLACES]."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(LISTS * PLACES, FEATURES)).astype(np.float32)
    rows = np.arange(LISTS * PLACES).reshape(LISTS, PLACES)
    lists = ClickLists(
        features=features,
        feature_names=tuple(map(str, range(FEATURES))),
        rows=rows,
        queries=np.arange(LISTS),
        slots=np.tile(np.arange(PLACES), (LISTS, 1)),
        shown=np.zeros(LISTS, dtype=np.int64),
        clicks=np.zeros_like(rows),
    )
    return lists, 0.1 + 0.9 / (1 + np.exp(-features[:, 0] - features[:, 1] + 1.0)).astype(np.float64)


def collapse_and_train(sessions: int) -> dict[str, float]:
    lists, attractive = make_lists()
    rng = np.random.default_rng(1)
    counter = SessionCounter(lists, patterns=False)
    counting = 0.0
    for start in range(0, sessions, PART):
        numbers = rng.integers(LISTS, size=min(PART, sessions - start))
        clicked = USERS.clicks(attractive[lists.rows[numbers]], lists.slots[numbers], rng)
        started = time.process_time()
        counter.add(numbers, clicked)
        counting += time.process_time() - started
    started = time.process_time()
    Dla().fit(counter.counted(), seed=0)
    return {"count": counting, "train": time.process_time() - started, "peak_mib": peak_memory_mib()}


def compare_sessions(steps: int, repeats: int) -> None:
    lists, attractive = make_lists()
    rng = np.random.default_rng(1)
    numbers = rng.integers(LISTS, size=PART)
    clicked = USERS.clicks(attractive[lists.rows[numbers]], lists.slots[numbers], rng)
    feed, baseline = SessionFeed(lists, numbers, clicked), DualLearner(FEATURES, PLACES)
    network = RankingNetwork(Normaliser.fit(lists.features), Scorer(FEATURES))
    source = BatchSource(lists, network.normalised(lists.features))
    trainer = NetworkTrainer(network, ClosedFormExamination(slot_groups(lists)), NetworkSettings())

    def ours() -> None:
        drawn = rng.integers(PART, size=BATCH)
        trainer.step(source.session_batch(numbers[drawn], clicked[drawn]))

    def theirs() -> None:
        baseline.step(feed.batch(BATCH))

    ways = {"shortlist": ours, "session by session through Python lists": theirs}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, step in ways.items():
            step()
            started = time.process_time()
            for _ in range(steps):
                step()
            rates[name].append(steps * BATCH / (time.process_time() - started))
    print("| way | sessions per CPU s (median) | lowest and highest |\n| --- | --- | --- |")
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f}-{max(found):,.0f} |")
    first, second = (statistics.median(found) for found in rates.values())
    print(f"\n{first / second:.1f}x")


if __name__ == "__main__":
    main()

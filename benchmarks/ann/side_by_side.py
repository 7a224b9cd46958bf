"""Peers of one environment, query by query in turn: ratios that hold on a machine that does other things too.

``python -m benchmarks.ann.side_by_side DIR --peers spann faiss-hnsw ...``, where DIR is what ``benchmarks.ann`` has
filled; indexes that are missing are built. Writes ``DIR/side_by_side.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.ann.data import K
from benchmarks.ann.measure import build, forget, measure_batches, percentiles, read_bytes
from benchmarks.ann.peers import Peer
from benchmarks.ann.registry import PEERS

RECALLS = (0.9, 0.95, 0.99)
WARM_ROUNDS = 400
COLD_ROUNDS = 30


def main() -> None:
    """Find the least setting per recall for each peer, then let them take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--peers", nargs="+", required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    queries = np.load(out / "data" / "queries.npy")
    peers = {name: _opened(name, out) for name in arguments.peers}
    settings = {name: _settings(name, peer, out, queries) for name, peer in peers.items()}
    contestants = {
        wanted: {name: (peers[name], *found[wanted]) for name, found in settings.items() if wanted in found}
        for wanted in RECALLS
    }
    # All that is warm first: what is cold drops pages that the others would have to read again.
    warm = {wanted: _warm(taking_part, queries) for wanted, taking_part in contestants.items()}
    cold = {wanted: _cold(taking_part, queries, out) for wanted, taking_part in contestants.items()}
    results = [
        {"peer": name, "wanted": wanted, "recall": recall, "knob": knob, **warm[wanted][name], **cold[wanted][name]}
        for wanted, taking_part in contestants.items()
        for name, (_, knob, recall) in taking_part.items()
    ]
    for line in results:
        print(json.dumps(line))
    (out / "side_by_side.json").write_text(json.dumps(results, indent=1) + "\n")


def _opened(name: str, out: Path) -> Peer:
    folder = out / "indexes" / name
    peer = PEERS[name]()
    if not (folder / "built").exists():
        line = build(peer, np.load(out / "data" / "base.npy", mmap_mode="r"), folder)
        print(name, json.dumps(line), flush=True)
        with (out / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    peer.open(folder, 1)
    return peer


def _settings(name: str, peer: Peer, out: Path, queries: npt.NDArray[np.float32]) -> dict[float, tuple[Any, float]]:
    """Find the least setting per recall, and keep it for the next time."""
    kept = out / "settings.json"
    known: dict[str, list[tuple[float, Any, float]]] = json.loads(kept.read_text()) if kept.exists() else {}
    if name not in known:
        base = np.load(out / "data" / "base.npy", mmap_mode="r")
        least = np.load(out / "data" / "truth.npy")[:, K - 1]
        found: dict[float, tuple[Any, float]] = {}
        for knob in peer.knobs:
            recall, _ = measure_batches(peer, base, queries, least, knob)
            found |= {wanted: (knob, recall) for wanted in RECALLS if recall >= wanted and wanted not in found}
            if len(found) == len(RECALLS):
                break
        known[name] = [(wanted, knob, recall) for wanted, (knob, recall) in found.items()]
        kept.write_text(json.dumps(known, indent=1) + "\n")
    return {wanted: (knob, recall) for wanted, knob, recall in known[name]}


Contestants = dict[str, tuple[Peer, Any, float]]


def _warm(contestants: Contestants, queries: npt.NDArray[np.float32]) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for peer, knob, _ in contestants.values():
        peer.search(queries[:WARM_ROUNDS], K, knob)
    for i in range(min(WARM_ROUNDS, len(queries))):
        query = queries[i : i + 1].copy()
        for name, (peer, knob, _) in contestants.items():
            started = time.perf_counter()
            peer.search(query, K, knob)
            seconds[name].append(time.perf_counter() - started)
    return {name: percentiles(values) for name, values in seconds.items()}


def _cold(contestants: Contestants, queries: npt.NDArray[np.float32], out: Path) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    read: dict[str, list[int]] = {name: [] for name in contestants}
    for i in range(min(COLD_ROUNDS, len(queries))):
        for name, (peer, knob, _) in contestants.items():
            forget(out / "indexes" / name)
            before = read_bytes()
            started = time.perf_counter()
            peer.search(queries[i][None].copy(), K, knob)
            seconds[name].append(time.perf_counter() - started)
            read[name].append(read_bytes() - before)
    return {
        name: {f"cold_{key}": value for key, value in percentiles(seconds[name]).items()}
        | {"read_kb": float(np.mean(read[name])) / 1e3}
        for name in contestants
    }


if __name__ == "__main__":
    main()

"""One peer in one process: build it once, then climb its knobs; every result is appended as a JSON line.

Needs NumPy and the peer's library only, so that it runs in the peer's own environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.ann.data import K
from benchmarks.ann.peers import Peer
from benchmarks.ann.registry import PEERS

WARM_QUERIES = 500
COLD_QUERIES = 50
BATCH_QUERIES = 100
LEAST_RECALL = 0.8
ENOUGH = 0.993
COLD_RECALLS = (0.9, 0.95, 0.99)
TIE = 1e-5
REFERENCE_ROWS = 20_000
REFERENCE_DIMENSIONS = 384
MADV_DONTNEED = 4


def main() -> None:
    """``measure PEER DATA OUT [THREADS]``; with threads only batches are measured."""
    name, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    threads = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    base = np.load(data / "base.npy", mmap_mode="r")
    queries = np.load(data / "queries.npy")
    least = np.load(data / "truth.npy")[:, K - 1]
    folder = out / "indexes" / name
    results = out / f"{name}.jsonl"
    peer = PEERS[name]()
    if not (folder / "built").exists():
        _append(results, build(peer, base, folder))
    before = _memory()
    peer.open(folder, threads)
    peer.search(queries[:1], K, peer.knobs[0])

    climbed = []
    for knob in peer.knobs:
        if threads > 1:
            measure_batches(peer, base, queries, least, knob)  # the run with one thread left the page cache cold
        reached, batch_seconds = measure_batches(peer, base, queries, least, knob)
        climbed.append((knob, reached))
        if reached < LEAST_RECALL:
            continue
        line = {"kind": "warm", "knob": knob, "recall": reached, "threads": threads}
        line |= {"qps": len(queries) / batch_seconds}
        line |= _warm(peer, queries, knob) if threads == 1 else {}
        after = _memory()
        line |= {name: after[name] - before[name] for name in after}
        _append(results, line)
        if reached >= ENOUGH:
            break
    if threads > 1:
        return
    for wanted in COLD_RECALLS:
        knob = next((knob for knob, reached in climbed if reached >= wanted), None)
        if knob is not None:
            _append(results, {"kind": "cold", "knob": knob, "wanted": wanted, **_cold(peer, queries, knob, folder)})


def build(peer: Peer, base: npt.NDArray[np.float32], folder: Path) -> dict[str, Any]:
    """Build an index and say what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    # In memory already, as every peer but ours wants it: reading the file is no part of building.
    content = np.ascontiguousarray(base)
    started, cpu = time.perf_counter(), time.process_time()
    peer.build(content, folder)
    line = {
        "kind": "build",
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "disk_mb": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
    }
    (folder / "built").touch()
    return line


def _warm(peer: Peer, queries: npt.NDArray[np.float32], knob: Any) -> dict[str, float]:
    """Time single queries; between them a fixed piece of work, to tell how busy the machine was with other things."""
    random = np.random.default_rng(0)
    rows = random.integers(0, REFERENCE_ROWS, 512)
    reference = random.normal(size=(REFERENCE_ROWS, REFERENCE_DIMENSIONS)).astype(np.float32)
    seconds, reference_seconds = [], []
    for i in range(min(WARM_QUERIES, len(queries))):
        query = queries[i : i + 1]
        started = time.perf_counter()
        peer.search(query, K, knob)
        seconds.append(time.perf_counter() - started)
        if i % 5 == 0:
            started = time.perf_counter()
            reference[rows].sum()
            reference_seconds.append(time.perf_counter() - started)
    return percentiles(seconds) | {"reference_us": float(np.median(reference_seconds) * 1e6)}


def measure_batches(
    peer: Peer,
    base: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    least: npt.NDArray[np.float32],
    knob: Any,
) -> tuple[float, float]:
    """Give the recall of all queries in batches, ties with the true tenth counting as hits, and the seconds taken."""
    seconds, hits = 0.0, 0
    for start in range(0, len(queries), BATCH_QUERIES):
        batch = queries[start : start + BATCH_QUERIES]
        started = time.perf_counter()
        found = peer.search(batch, K, knob)
        seconds += time.perf_counter() - started
        for row, rows in enumerate(found, start):
            scores = np.asarray(base[rows[rows >= 0]]) @ queries[row]
            hits += min(K, int((scores >= least[row] - TIE).sum()))
    return hits / (K * len(queries)), seconds


def _cold(peer: Peer, queries: npt.NDArray[np.float32], knob: Any, folder: Path) -> dict[str, float]:
    """Search with the index's pages dropped from the page cache and the maps of this process before each query."""
    seconds, read = [], []
    for i in range(min(COLD_QUERIES, len(queries))):
        forget(folder)
        before = read_bytes()
        started = time.perf_counter()
        peer.search(queries[i : i + 1], K, knob)
        seconds.append(time.perf_counter() - started)
        read.append(read_bytes() - before)
    return {**percentiles(seconds), "read_kb": float(np.mean(read)) / 1e3}


def forget(folder: Path) -> None:
    """Drop the pages of a folder's files from memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    for start, stop in _maps(folder):
        # A page that a process maps is not dropped: it must be unmapped first.
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), MADV_DONTNEED)
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _maps(folder: Path) -> Iterator[tuple[int, int]]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(folder.resolve()) in line:
            start, stop = line.split()[0].split("-")
            yield int(start, 16), int(stop, 16)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Give the median and the 95th percentile in microseconds."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e6
    return {"p50_us": float(p50), "p95_us": float(p95)}


def read_bytes() -> int:
    """Count the bytes that this process has had read from devices."""
    content = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(content["read_bytes"])


def _memory() -> dict[str, float]:
    """Memory of the process in MB: its own, and pages of files that it has mapped, which the system may take back."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {f"{kind}_mb": int(status[f"Rss{kind.title()}"].split()[0]) / 1e3 for kind in ("anon", "file")}


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(path.stem, json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

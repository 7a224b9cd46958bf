"""The names of what is compared."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.ann.faiss_peers import FAISS_PEERS
from benchmarks.ann.peers import DiskAnn, DiskAnnRust, HnswLib, LanceDb, Peer, Spann, Usearch

PEERS: dict[str, Callable[[], Peer]] = {
    "spann": lambda: Spann(),
    "spann-lean": lambda: Spann(head_ratio=0.01),
    "spann-cold": lambda: Spann(prefetch=True, rng_factor=1.2),
    **FAISS_PEERS,
    "hnswlib": HnswLib,
    "usearch": Usearch,
    "lancedb": LanceDb,
    "diskannpy": DiskAnn,
    "diskannpy-rust": DiskAnnRust,
}

"""Compare nearest-neighbour indexes: ``python -m benchmarks.ann DATA --out DIR [--peers ...] [--python PEER=PATH]``.

DATA is a folder with ``base.f16.npy`` and ``queries.f16.npy`` of unit vectors, or ``synthetic:N:D``. Every peer runs in
a process of its own. What is done already is not done again: remove ``DIR/PEER.jsonl`` to measure a peer anew, and
``DIR/indexes/PEER`` to build it anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.ann.data import prepare
from benchmarks.ann.registry import PEERS
from benchmarks.ann.report import report


def main() -> None:
    """Run what is missing, then write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", nargs="+", default=[name for name in PEERS if not name.startswith("diskann")])
    parser.add_argument("--python", nargs="*", default=[], help="PEER=PATH: the interpreter that has a peer's library")
    parser.add_argument("--threads", type=int, default=2, help="measure batches with so many threads as well")
    parser.add_argument("--queries", type=int, default=1000)
    arguments = parser.parse_args()
    data = arguments.out / "data"
    prepare(arguments.data, data, queries=arguments.queries)
    pythons = dict(pair.split("=", 1) for pair in arguments.python)
    for name in arguments.peers:
        results = arguments.out / f"{name}.jsonl"
        done = results.read_text() if results.exists() else ""
        command = [pythons.get(name, sys.executable), "-m", "benchmarks.ann.measure", name, data, arguments.out]
        if '"kind": "cold"' not in done:
            subprocess.run(command, check=False)
        if arguments.threads > 1 and f'"threads": {arguments.threads}' not in done:
            subprocess.run([*command, str(arguments.threads)], check=False)
    report(arguments.out)


if __name__ == "__main__":
    main()

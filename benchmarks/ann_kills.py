"""Kill -9 at random points of build, update, merge and snapshot: what was acknowledged is there afterwards.

``python -m benchmarks.ann_kills --kills 200``: of an index of vectors. With ``--changes`` of a whole index, whose
documents, words and vectors change together.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.index.change_killing import ChangeKiller
from tests.index.spann.killing import Killer

KILLS_PER_INDEX = 20
"""Then a new index is begun, so that its build is killed too."""


def main() -> None:
    """Kill, and print what was under way; a difference ends it with an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changes", action="store_true", help="Kill changes of documents, words and vectors together.")
    given = parser.parse_args()
    during: Counter[str] = Counter()
    started = time.perf_counter()
    done = 0
    while done < given.kills:
        with tempfile.TemporaryDirectory() as folder:
            kind = ChangeKiller if given.changes else Killer
            killer = kind(Path(folder) / "index", seed=given.seed + done)
            for _ in range(min(KILLS_PER_INDEX, given.kills - done)):
                killer.kill_once()
                done += 1
            during += killer.killed_during
        counts = ", ".join(f"{kind} {count}" for kind, count in during.most_common())
        print(f"{done} kills in {time.perf_counter() - started:.0f} s, nothing lost; under way: {counts}", flush=True)


if __name__ == "__main__":
    main()

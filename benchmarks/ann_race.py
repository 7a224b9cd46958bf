"""Readers beside one writer and its merges, for minutes: every hit must have been alive during its search.

``python -m benchmarks.ann_race --seconds 300``
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from index.spann.check import check
from tests.index.spann.race import Race


def main() -> None:
    """Run, and end with an error at the first wrong hit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        race = Race(Path(folder) / "index", rows=given.rows, seed=given.seed)
        race.run(seconds=given.seconds, readers=given.readers)
        wrong = [*race.wrong, *map(str, check(Path(folder) / "index"))]
    print(f"{race.searches} searches beside {race.writes} writes: {len(wrong)} wrong")
    if wrong:
        raise SystemExit("\n".join(wrong[:10]))


if __name__ == "__main__":
    main()

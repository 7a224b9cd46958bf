"""A process that writes to a click log, for tests of several: ``python -m tests.index.clicklog.writer URL NAME COUNT``.

Prints the id of each event once it is stored. With a COUNT of 0 it goes on until it is killed.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

from index.clicklog.store import open_click_log
from tests.index.clicklog.records import CLICK

BATCH = 10


def main() -> None:
    url, name, count = sys.argv[1:]
    log = open_click_log(url)
    for start in itertools.count(0, BATCH) if count == "0" else range(0, int(count), BATCH):
        ids = [f"{name}-{at}" for at in range(start, start + BATCH)]
        log.add_events([replace(CLICK, id=id) for id in ids])
        print("\n".join(ids), flush=True)


if __name__ == "__main__":
    main()

"""A process that writes to an index and says what was acknowledged, until it is killed or kills itself.

``python -m tests.index.spann.victim ROOT SEED STEP``: STEP is the step to the disk (a write, a sync, a rename, a
removal, a statement of SQL) at which it dies by its own hand, half of its bytes written if it is a write; 0 for none.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.spann.building import build_index
from index.spann.live import SpannIndex
from index.spann.manifest import CURRENT_FILE
from index.spann.vectors import ArrayStream

DIMENSIONS = 8
BUILT_ROWS = 2500
NEW_IDS = 400
MERGE_ROWS = 60
SNAPSHOT_EVERY = 25


def vector_of(name: str, version: int) -> npt.NDArray[np.float32]:
    """Draw the vector that a document has in a version."""
    return np.random.default_rng([int(name[1:]), version]).normal(size=DIMENSIONS).astype(np.float32)


def built_ids() -> list[str]:
    """Ids the first build has, all in version 0."""
    return [f"d{i}" for i in range(BUILT_ROWS)]


def say(**fields: object) -> None:
    """Tell the process that watches; one write to a pipe is never cut."""
    os.write(1, json.dumps(fields).encode() + b"\n")


def die() -> None:
    """End at once, without any cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: int) -> None:
    """Count the steps to the disk and die at one of them."""
    left = [step]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if function is write:
                    write(args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
                die()
            return function(*args, **kwargs)

        return call

    class Counted(sqlite3.Connection):
        execute = counted(sqlite3.Connection.execute)

    setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Counted))  # noqa: B010 - of a module
    write = os.pwrite
    for module, name in ((os, "pwrite"), (os, "fsync"), (os, "link"), (os, "ftruncate"), (Path, "replace"),
                         (Path, "rename"), (Path, "unlink"), (Path, "write_text")):  # fmt: skip
        setattr(module, name, counted(getattr(module, name)))


def write_forever(index: SpannIndex, root: Path, seed: int) -> None:
    """Do random writes, merges and snapshots; each is announced, and acknowledged when the call has returned."""
    choose = random.Random(seed)
    number = seed * 1_000_000
    while True:
        number += 1
        kind = choose.choices(["put", "delete", "merge"], [10, 5, 0.5])[0]
        ids = [f"d{i}" for i in choose.sample(range(BUILT_ROWS + NEW_IDS), choose.choice([1, 1, 3, 20]))]
        if number % SNAPSHOT_EVERY == 0:
            say(kind="snapshot", ids=[], number=number)
            index.snapshot(root.with_name(f"snapshot-{number}"))
        elif kind == "put":
            say(kind=kind, ids=ids, number=number)
            vectors = np.stack([vector_of(name, number) for name in ids])
            index.replace(ids, vectors, [{"version": number} for _ in ids])
        elif kind == "delete":
            say(kind=kind, ids=ids, number=number)
            index.delete(ids)
        else:
            say(kind="merge", ids=[], number=number)
            index.merge(full=choose.random() < 0.3)
        say(kind="ok", number=number)


def main(root: Path, seed: int, step: int) -> None:
    """Build the index if there is none, and write to it."""
    say(kind="ready")
    if step:
        die_at(step)
    if not (root / CURRENT_FILE).exists():
        names = built_ids()
        vectors = np.stack([vector_of(name, 0) for name in names])
        build_index(root, [(name, {"version": 0}) for name in names], ArrayStream(vectors))
    say(kind="built")
    with SpannIndex.open(root, merge_rows=MERGE_ROWS) as index:
        say(kind="open")
        write_forever(index, root, seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

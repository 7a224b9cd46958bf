"""Kills the victim again and again, and compares what is there afterwards with what was acknowledged."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from index.spann.check import check
from index.spann.live import SpannIndex
from index.spann.manifest import CURRENT_FILE
from tests.index.spann.victim import built_ids, vector_of

Versions = dict[str, int]
"""The version of each document that is there."""


@dataclass
class Killer:
    """Keeps what must be in the index.

    `state` is what was acknowledged; `snapshots` what it was when a snapshot was. `most_steps` and `most_seconds` say
    how far the victim may get, before the index is built and after.
    """

    root: Path
    seed: int
    state: Versions = field(default_factory=dict)
    snapshots: dict[int, Versions] = field(default_factory=dict)
    killed_during: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    victim: str = "tests.index.spann.victim"
    most_steps: tuple[int, int] = (40, 250)
    most_seconds: tuple[float, float] = (0.3, 0.6)

    def kill_once(self) -> None:
        """Start the victim, kill it at a random point or let it die at one, and check what it leaves."""
        self.rounds += 1
        choose = random.Random(self.seed * 10_007 + self.rounds)
        is_built = self._is_built()
        own_hand = choose.random() < 0.6
        step = choose.randint(1, self.most_steps[is_built]) if own_hand else 0
        after_s = choose.uniform(0, self.most_seconds[is_built])
        said = self._run(choose.randint(1, 10**6), step, after_s)
        self._follow(said)
        self._check()

    def _run(self, seed: int, step: int, after_s: float) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", self.victim, str(self.root), str(seed), str(step)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            if not step:
                time.sleep(after_s)
                process.kill()
            said = [first, *process.stdout]
        assert process.returncode == -9, f"the victim ended by itself with {process.returncode}"
        return [json.loads(line) for line in said if line.endswith(b"\n")]

    def _follow(self, said: list[dict[str, Any]]) -> None:
        """Repeat what was acknowledged; what was announced and not acknowledged may have happened, or not."""
        self.pending: dict[str, Any] | None = None
        where = "build" if not self.state else "open"
        for line in said:
            if line["kind"] == "built" and not self.state:
                self.state = self._built_state()
            if line["kind"] == "open":
                where = "write"
            elif line["kind"] == "ok":
                assert self.pending is not None
                self.state = applied(self.state, self.pending)
                if self.pending["kind"] == "snapshot":
                    self.snapshots[self.pending["number"]] = self.state
                self.pending = None
            elif line["kind"] not in ("ready", "built"):
                self.pending = line
        self.killed_during[self.pending["kind"] if self.pending else where] += 1

    def _is_built(self) -> bool:
        return (self.root / CURRENT_FILE).exists()

    def _built_state(self) -> Versions:
        return dict.fromkeys(built_ids(), 0)

    def _check(self) -> None:
        if not self._is_built():
            assert not self.state, "an index that was built is gone"
            return
        if not self.state:
            self.state = self._built_state()  # it died after the rename, before it could say so
        wrong = [finding for finding in check(self.root) if not finding.harmless]
        assert not wrong, wrong
        with SpannIndex.open(self.root, merge_rows=None) as index:
            found = contents(index)
            allowed = [self.state, applied(self.state, self.pending) if self.pending else self.state]
            assert found in allowed, difference(found, allowed[0])
            self.state = found
            self._search(index)
        assert check(self.root) == []
        for folder in sorted(self.root.parent.glob("snapshot-*")):
            expected = self.snapshots.get(int(folder.name.split("-")[1]), self.state)
            with SpannIndex.open(folder, read_only=True, verify=True) as copy:
                assert contents(copy) == expected, f"{folder} is not as it was"
            shutil.rmtree(folder)
        self.snapshots.clear()

    def _search(self, index: SpannIndex) -> None:
        """The best hit of a live document's vector is the document; one that is gone is never found."""
        names = random.Random(self.rounds).sample(sorted(self.state), 20)
        hits = index.search(np.stack([vector_of(name, self.state[name]) for name in names]), len(self.state))
        for row in hits:
            assert {name for name, _ in row} <= set(self.state)


def applied(state: Versions, said: dict[str, Any]) -> Versions:
    """Give the state after a write."""
    if said["kind"] == "put":
        return state | dict.fromkeys(said["ids"], said["number"])
    if said["kind"] == "delete":
        return {name: version for name, version in state.items() if name not in said["ids"]}
    return state


def contents(index: SpannIndex) -> Versions:
    """Read everything, and check every vector."""
    names = list(index.ids())
    assert len(set(names)) == len(names) == len(index)
    found = index.fetch(names)
    versions = {name: int(metadata["version"]) for name, (_, metadata) in found.items()}
    for name, (vector, _) in found.items():
        np.testing.assert_array_equal(vector, vector_of(name, versions[name]))
    return versions


def difference(found: Versions, expected: Versions) -> str:
    """Say how two states differ."""
    differing = {name for name in found.keys() | expected if found.get(name) != expected.get(name)}
    return f"{len(differing)} documents differ: " + ", ".join(
        f"{name} is {found.get(name)} instead of {expected.get(name)}" for name in sorted(differing)[:5]
    )

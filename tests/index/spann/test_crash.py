"""Kill -9 at random points; `benchmarks.ann_kills` does it 200 times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.index.spann.killing import Killer


@pytest.mark.parametrize(("seed", "kills"), [(1, 8), (2, 4)])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, seed: int, kills: int) -> None:
    killer = Killer(tmp_path / "index", seed)
    for _ in range(kills):
        killer.kill_once()
    assert killer.killed_during.total() == kills

"""The split in time: what is shown later is not learned from, and changes nothing in what is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index.clicklog.interchange import export_log
from index.clicklog.store import open_click_log
from rankers.ltr.features import load_feature_set
from tests.training.loop.world import open_shop, visit
from training.loop.evidence import Evidence, read_evidence, split_moment


def evidence_of(shop: Path, name: str, until: Evidence | None = None) -> Evidence:
    log = open_click_log(f"sqlite:///{shop}/clicks.sqlite")
    export_log(log, shop / name)
    log.close()
    moment = split_moment(shop / name, 0.3) if until is None else until.split_at
    return read_evidence(shop / name, moment, load_feature_set(str(shop / "features.yaml")))


def test_later_sessions_do_not_leak_into_what_is_learned_from(tmp_path: Path) -> None:
    open_shop(tmp_path)
    visit(tmp_path, sessions=10, seed=1)
    before = evidence_of(tmp_path, "before")
    visit(tmp_path, sessions=10, seed=2, days=30)
    after = evidence_of(tmp_path, "after", until=before)
    assert after.data_hash == before.data_hash
    assert after.learn.sessions == before.learn.sessions
    assert after.decide.sessions == before.decide.sessions + 300
    np.testing.assert_array_equal(after.learn.clicks, before.learn.clicks)


def test_every_session_is_on_one_side(tmp_path: Path) -> None:
    open_shop(tmp_path)
    visit(tmp_path, sessions=10, seed=1)
    found = evidence_of(tmp_path, "log")
    assert found.learn.sessions + found.decide.sessions == 300
    assert abs(found.decide.sessions / 300 - 0.3) < 0.02
    assert found.learn.features.shape[1] == found.decide.features.shape[1]

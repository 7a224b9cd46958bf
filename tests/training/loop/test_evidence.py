"""The split in time: what is shown later is not learned from, and changes nothing in what is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from index.clicklog.interchange import export_log
from index.clicklog.store import open_click_log
from rankers.errors import InvalidInputError
from rankers.ltr.features import load_feature_set
from tests.training.loop.world import BEGIN, open_shop, visit
from training.clicks.filters import Reason
from training.loop.evidence import Evidence, read_evidence, split_moment


def evidence_of(shop: Path, name: str, until: Evidence | None = None) -> Evidence:
    log = open_click_log(f"sqlite:///{shop}/clicks.sqlite")
    export_log(log, shop / name)
    log.close()
    features = load_feature_set(str(shop / "features.yaml"))
    moment = split_moment(shop / name, 0.3, feature_set=features.id) if until is None else until.split_at
    return read_evidence(shop / name, moment, features)


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


def test_other_pipelines_and_versions_of_the_feature_set_change_nothing_but_counts(tmp_path: Path) -> None:
    open_shop(tmp_path)
    visit(tmp_path, sessions=10, seed=1)
    before = evidence_of(tmp_path, "before")
    visit(tmp_path, sessions=10, seed=2, days=30, feature_set="shop@2")
    visit(tmp_path, sessions=10, seed=3, feature_set="")
    visit(tmp_path, sessions=10, seed=4, days=30, feature_set="")
    after = evidence_of(tmp_path, "after")
    assert (after.split_at, after.data_hash) == (before.split_at, before.data_hash)
    for ours, theirs in ((after.learn, before.learn), (after.decide, before.decide)):
        np.testing.assert_array_equal(ours.features, theirs.features)
        np.testing.assert_array_equal(ours.clicks, theirs.clicks)
    left_out = {one.reason: one.count for one in after.decide_report.removed if one.table == "impressions"}
    # Between the split and the end 600 were shown elsewhere, and some of those that began together with ours.
    assert left_out[Reason.OTHER_FEATURES] >= 600
    assert left_out[Reason.OTHER_FEATURES] + left_out[Reason.OUTSIDE_PERIOD] == 1200 - after.decide.sessions


def test_the_split_is_one_of_the_period(tmp_path: Path) -> None:
    open_shop(tmp_path)
    visit(tmp_path, sessions=20, seed=1)
    visit(tmp_path, sessions=2, seed=2, days=30)
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    export_log(log, tmp_path / "log")
    log.close()
    since = BEGIN + timedelta(days=20)
    assert split_moment(tmp_path / "log", 0.3) < since
    found = split_moment(tmp_path / "log", 0.3, since=since)
    assert BEGIN + timedelta(days=30, minutes=40) < found < BEGIN + timedelta(days=30, minutes=44)
    with pytest.raises(InvalidInputError, match=r"none of 660 impressions was logged with feature set 'shop@2' since"):
        split_moment(tmp_path / "log", 0.3, since=since, feature_set="shop@2")

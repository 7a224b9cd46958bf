"""The examination curve of two times: what moved is found, what did not is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.ultr.small_lists import attractiveness, empty_lists
from training.ultr.drift import curve_drift
from training.ultr.lists import ClickLists
from training.ultr.simulate import PositionBased, examination_curve, simulate_clicks

LISTS = empty_lists([6, 4, 6, 6, 5] * 20, places=6)
SCORES = np.log(attractiveness(LISTS))


def visited(eta: float, *, seed: int, sessions: int = 20_000, lists: ClickLists = LISTS) -> ClickLists:
    users = PositionBased(examination_curve(6, eta=eta))
    return simulate_clicks(lists, attractiveness(LISTS), users, sessions=sessions, seed=seed)


@pytest.mark.parametrize("sessions", [500, 20_000])
def test_nothing_moved(sessions: int) -> None:
    drift = curve_drift(visited(1.0, seed=1, sessions=sessions), visited(1.0, seed=2), SCORES)
    assert not drift.beyond(0.0) or drift.change < 1.3 * drift.by_chance


def test_a_curve_that_flattened_is_found() -> None:
    drift = curve_drift(visited(1.0, seed=1), visited(0.3, seed=2), SCORES)
    expected = np.abs(examination_curve(6) / 0.68 - examination_curve(6, eta=0.3) / 0.68**0.3).mean()
    assert drift.change == pytest.approx(expected, abs=0.06)
    assert drift.beyond(0.15)
    assert not drift.beyond(0.9)


def test_times_may_show_different_lists() -> None:
    early = visited(1.0, seed=1, lists=LISTS.take(np.arange(60)))
    late = visited(1.0, seed=2, lists=LISTS.take(np.arange(40, 100)))
    drift = curve_drift(early, late, SCORES)
    assert np.isfinite([*drift.earlier, *drift.later]).all()
    assert drift.change < 0.1


def test_slots_of_one_time_only_do_not_count() -> None:
    short = replace(LISTS, rows=LISTS.rows[:, :3], slots=LISTS.slots[:, :3], clicks=LISTS.clicks[:, :3])
    drift = curve_drift(visited(1.0, seed=1), visited(1.0, seed=2, lists=short), SCORES)
    assert len(drift.later) == 3
    assert drift.change < 0.1


def test_the_same_seed_draws_the_same() -> None:
    one, two = (curve_drift(visited(1.0, seed=1), visited(0.9, seed=2), SCORES, seed=4) for _ in range(2))
    assert one.by_chance == two.by_chance

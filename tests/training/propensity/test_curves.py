from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rankers.errors import InvalidInputError
from tests.training.clicks.simulated import EXAMINED, disagreeing_lists, shown_to_users
from tests.training.propensity.test_propensities import users
from training.clicks.resampling import Unit
from training.propensity.curves import PropensityCurve, plot_curves, propensity_curve, relative
from training.propensity.harvesting import all_pairs_propensities
from training.propensity.randomisation import shuffled_propensities
from training.ultr.lists import ClickLists


def log(seed: int) -> ClickLists:
    return shown_to_users(disagreeing_lists(40, 2, seed=seed), users(40, seed=seed), sessions=4_000, seed=seed)


@pytest.mark.parametrize("unit", list(Unit))
def test_bands_hold_the_truth_as_often_as_they_say(unit: Unit) -> None:
    inside = []
    for seed in range(30):
        curve = propensity_curve("", log(seed), all_pairs_propensities, unit=unit, replicates=40, seed=seed)
        inside.append((curve.low[1:] <= EXAMINED[1:]) & (EXAMINED[1:] <= curve.high[1:]))
        assert (curve.low <= curve.estimate).all()
        assert (curve.estimate <= curve.high).all()
        assert curve.low[0] == curve.high[0] == 1.0
    assert np.mean(inside) >= 0.85


def test_any_estimator_gets_a_band_and_slots_it_cannot_tell_get_none() -> None:
    def learned(lists: ClickLists) -> npt.NDArray[np.float64]:
        return np.array([2.0, lists.clicks.sum() / lists.shown.sum(), np.nan])

    curve = propensity_curve("learner", log(0), learned, replicates=20)
    assert curve.estimate[0] == 1.0
    assert curve.low[1] < curve.estimate[1] < curve.high[1]
    assert np.isnan([curve.low[2], curve.high[2]]).all()
    assert curve == curve


def test_draws_without_an_estimate_are_counted_and_too_many_refused() -> None:
    calls = []

    def sometimes(lists: ClickLists) -> npt.NDArray[np.float64]:
        calls.append(lists)
        if len(calls) % 2 == 0:
            raise InvalidInputError("too little")
        return np.array([1.0, 0.5])

    assert propensity_curve("", log(0), sometimes, replicates=10).failures == 5
    assert len(calls) == 11

    def once(lists: ClickLists) -> npt.NDArray[np.float64]:
        calls.append(lists)
        if len(calls) > 12:
            raise InvalidInputError("too little")
        return np.array([1.0, 0.5])

    with pytest.raises(InvalidInputError, match="none of 3 drawn logs"):
        propensity_curve("", log(0), once, replicates=3)


def test_the_plot_names_every_curve_and_is_the_same_every_time(tmp_path: Path) -> None:
    lists = log(0)
    curves = [
        propensity_curve(name, lists, estimate, replicates=10)
        for name, estimate in (("AllPairs", all_pairs_propensities), ("clicks", shuffled_propensities))
    ]
    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    plot_curves(curves, one, truth=EXAMINED)
    plot_curves(curves, other, truth=EXAMINED)
    drawn = one.read_text()
    assert drawn == other.read_text()
    for name in ("AllPairs", "clicks", "truth"):
        assert f"<!-- {name} -->" in drawn
    unknown = PropensityCurve("gaps", np.array([1.0, np.nan]), np.array([1.0, np.nan]), np.array([1.0, np.nan]))
    plot_curves([unknown], tmp_path / "gaps.png")
    assert (tmp_path / "gaps.png").stat().st_size > 1_000


def test_what_cannot_be_drawn_or_compared_says_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        plot_curves([], tmp_path / "none.svg")
    with pytest.raises(InvalidInputError, match="no first slot"):
        relative(np.array([0.0, 1.0]))

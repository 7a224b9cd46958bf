"""Every name a loop's file may say stands for a learner."""

from typing import get_args

import pytest

from training.loop.learners import learner_named
from training.loop.settings import OF_TREES, LearnerName, ScorerName
from training.ultr.learner import settings_of


@pytest.mark.parametrize("name", get_args(LearnerName))
def test_every_name_makes_a_learner(name: LearnerName) -> None:
    assert callable(learner_named(name).fit)


@pytest.mark.parametrize("name", [name for name in get_args(LearnerName) if name not in OF_TREES])
def test_every_network_may_be_linear(name: LearnerName) -> None:
    for scorer, layers in zip(get_args(ScorerName), ([64, 32], []), strict=True):
        network = settings_of(learner_named(name, scorer))["network"]
        assert isinstance(network, dict)
        assert network["hidden"] == layers

"""Every name a loop's file may say stands for a learner."""

from typing import get_args

import pytest

from training.loop.learners import learner_named
from training.loop.settings import LearnerName


@pytest.mark.parametrize("name", get_args(LearnerName))
def test_every_name_makes_a_learner(name: LearnerName) -> None:
    assert callable(learner_named(name).fit)

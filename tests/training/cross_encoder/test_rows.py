"""What a trainer of cross-encoders sees of its lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.types import Document, Query
from tests.training.lists import topic_lists
from training.cross_encoder.rows import easiness, make_rows
from training.cross_encoder.settings import CrossEncoderSettings
from training.data.training_list import TrainingList


def graded(*targets: float) -> TrainingList:
    documents = tuple(Document(f"d{i}", f"text {i}") for i in range(len(targets)))
    return TrainingList(Query("q", "query"), documents, targets, "test")


@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=12).filter(lambda t: len(set(t)) > 1),
    st.integers(2, 8),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_rows_keep_the_order_and_always_teach_one(
    targets: list[int], candidates: int, positives: int, seed: int
) -> None:
    settings = CrossEncoderSettings(candidates=candidates, positives=positives, seed=seed)
    rows = make_rows([graded(*map(float, targets))], settings)
    (ranks,), (labels,), (documents,) = rows["ranks"], rows["label"], rows["documents"]
    assert ranks == sorted(set(ranks))
    assert labels == [targets[rank - 1] for rank in ranks]
    assert documents == [f"text {rank - 1}" for rank in ranks]
    assert 2 <= len(ranks) <= candidates
    assert len(set(labels)) > 1


def test_every_epoch_draws_anew_and_a_seed_says_how() -> None:
    settings = CrossEncoderSettings(candidates=2, epochs=4)
    rows = make_rows(topic_lists(), settings)
    assert len(rows["query"]) == 4 * len(topic_lists())
    epochs = [sorted(map(tuple, rows["ranks"][start : start + 10])) for start in range(0, 40, 10)]
    assert len({str(epoch) for epoch in epochs}) > 1
    assert rows == make_rows(topic_lists(), settings)
    assert rows != make_rows(topic_lists(), settings.model_copy(update={"seed": 1}))


def test_lists_that_teach_nothing_are_left_out_or_refused() -> None:
    settings = CrossEncoderSettings()
    assert len(make_rows([graded(1, 1), graded(1, 0)], settings)["query"]) == 1
    with pytest.raises(InvalidInputError, match="none of 1 training lists has two different targets"):
        make_rows([graded(1, 1)], settings)


def test_easiness_is_what_the_first_stage_has_right() -> None:
    assert easiness([2, 1, 0]) == 1.0
    assert easiness([0, 1, 2]) == 0.0
    assert easiness([1, 0, 1]) == 0.5

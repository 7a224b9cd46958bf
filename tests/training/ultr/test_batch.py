"""Batches of lists: what is in them, and how queries are divided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tests.training.ultr.small_lists import clicked_lists, empty_lists
from training.ultr.batch import BatchSource, split_queries

SIZES = [4, 1, 3, 4, 2, 4]


def test_a_batch_holds_the_lists_asked_for() -> None:
    lists = clicked_lists(empty_lists(SIZES, places=4), sessions=500)
    source = BatchSource(lists, torch.from_numpy(lists.features), pairs=True)
    batch = source.batch(torch.tensor([2, 0]))
    assert batch.mask.tolist() == [[True, True, True, False], [True] * 4]
    np.testing.assert_array_equal(batch.clicks, lists.clicks[[2, 0]])
    np.testing.assert_array_equal(batch.shown, lists.shown[[2, 0]])
    np.testing.assert_array_equal(batch.features[1], lists.features[lists.rows[0]])
    assert batch.slots[0, 3] == 0
    assert batch.pairs is not None
    assert batch.pairs.shape == (2, 4, 4)


def test_scores_of_places_are_those_of_their_documents() -> None:
    lists = empty_lists(SIZES, places=4)
    source = BatchSource(lists, torch.from_numpy(lists.features))
    scores, batch = source.scored(lambda rows: rows.sum(dim=1), torch.arange(6))
    expected = lists.features.sum(axis=1)[np.maximum(lists.rows, 0)]
    np.testing.assert_allclose(scores[batch.mask], expected[lists.mask], rtol=1e-6)


def test_a_pass_in_random_order_sees_every_list_once() -> None:
    lists = replace(empty_lists(SIZES, places=4), shown=np.arange(6))
    source = BatchSource(lists, torch.from_numpy(lists.features))
    generator = torch.Generator().manual_seed(0)
    parts = list(source.shuffled(torch.arange(6), batch_lists=4, generator=generator))
    assert [len(part.shown) for part in parts] == [3, 3]
    assert sorted(torch.cat([part.shown for part in parts]).tolist()) == list(range(6))


def test_single_sessions_are_lists_shown_once() -> None:
    lists = empty_lists(SIZES, places=4)
    source = BatchSource(lists, torch.from_numpy(lists.features))
    clicked = np.array([[True, False, False, False], [False, True, False, False]])
    batch = source.session_batch(np.array([3, 3]), clicked)
    assert batch.shown.tolist() == [1.0, 1.0]
    assert batch.clicks.tolist() == clicked.astype(float).tolist()


def test_lists_of_a_query_stay_together_and_silent_lists_are_left_out() -> None:
    lists = empty_lists([3] * 40, places=3)
    clicks = np.ones((40, 3), dtype=np.int64)
    clicks[::4] = 0
    lists = replace(lists, queries=np.arange(40) // 2, shown=np.full(40, 9), clicks=clicks)
    learn, held_out = split_queries(lists, held_out=0.25, seed=3)
    assert sorted([*learn, *held_out]) == np.flatnonzero(clicks.any(axis=1)).tolist()
    assert not set(lists.queries[learn]) & set(lists.queries[held_out])
    assert len(set(lists.queries[held_out])) == 5


def test_a_log_that_grew_is_divided_as_before() -> None:
    grown = clicked_lists(empty_lists([3] * 60, places=3), sessions=5000)
    early = grown.take(np.arange(50))
    (_, before), (_, after) = (split_queries(lists, held_out=0.2, seed=1) for lists in (early, grown))
    assert len(set(before) & set(after)) >= len(before) - 2


def test_one_query_is_never_held_out() -> None:
    learn, held_out = split_queries(clicked_lists(empty_lists([3], places=3), sessions=99), held_out=0.5, seed=0)
    assert (len(learn), len(held_out)) == (1, 0)

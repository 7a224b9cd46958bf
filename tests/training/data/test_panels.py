"""Lists that share their documents."""

from __future__ import annotations

import pytest

from index.encoders import Encoder
from rankers.types import Document, Query
from training.data.panels import build_panels, share_best
from training.data.training_list import TrainingList

TEXTS = {
    "cat": ("Cats", "a cat sleeps most of the day"),
    "dog": ("Dogs", "a dog likes to run in the park"),
    "sun": ("The sun", "the sun is a star made of hydrogen"),
    "sea": ("The sea", "the sea is salty and deep"),
}


@pytest.fixture
def lists() -> list[TrainingList]:
    """Four lists over the same four documents, each with one that is relevant."""
    documents = [Document(i, text, title=title) for i, (title, text) in TEXTS.items()]
    return [
        TrainingList(Query(f"q-{d.id}", f"what about {d.title.lower()}?"), tuple(documents), targets, "made")
        for d in documents
        for targets in [tuple(float(other is d) for other in documents)]
    ]


@pytest.fixture(scope="module")
def teacher(minilm: str) -> Encoder:
    return Encoder(minilm)


def test_a_panel_shows_the_same_documents_to_several_queries(lists: list[TrainingList], teacher: Encoder) -> None:
    panel = list(build_panels(lists[:1] + lists[1:], teacher, documents=3, queries=5, words=4))[:5]
    shown = panel[0].documents
    assert [d.id for d in shown] == ["cat", "dog", "sun"]
    assert [d.text for d in shown] == ["a cat sleeps most", "a dog likes to", "the sun is a"]
    assert not any(d.title for d in shown)
    assert all(item.documents == shown for item in panel)
    assert panel[0].query.id == "q-cat"
    assert sum(item.query.id.startswith("title-") for item in panel) == 2
    assert len({item.query.text for item in panel}) == 5


def test_what_was_judged_comes_first_and_the_teacher_orders_the_rest(
    lists: list[TrainingList], teacher: Encoder
) -> None:
    for item in build_panels(lists, teacher, documents=4, queries=4):
        name = item.query.id.removeprefix("q-").removeprefix("title-")
        best = max(range(4), key=lambda i: item.targets[i])
        assert item.documents[best].id == name
        assert item.targets[best] > 1
        assert len(set(item.targets)) == 4


def test_the_best_of_several_lists_meet(lists: list[TrainingList]) -> None:
    met = list(share_best(lists, documents=2, seed=3))
    assert sorted(item.query.id for item in met) == ["q-cat", "q-dog", "q-sea", "q-sun"]
    for item in met:
        assert len(item.documents) == 2
        assert item.documents[item.targets.index(1.0)].id == item.query.id.removeprefix("q-")
    assert met[0].documents == met[1].documents != met[2].documents
    assert met == list(share_best(lists, documents=2, seed=3))


def test_lists_without_anything_relevant_do_not_meet(lists: list[TrainingList]) -> None:
    nothing = TrainingList(Query("none", "?"), lists[0].documents, (0.0, 0.0, 0.0, -1.0), "made")
    assert "none" not in {item.query.id for item in share_best([nothing, *lists], documents=4)}
    assert list(share_best(lists[:1], documents=2)) == []

"""Lists that share their documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from index.encoders import Encoder
from rankers.errors import InvalidInputError
from rankers.types import Document, Query
from training.data.command import data
from training.data.panels import build_panels, share_best
from training.data.training_list import TrainingList, read_lists, write_lists

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


def test_documents_that_are_best_for_no_query_meet_their_titles(lists: list[TrainingList]) -> None:
    nothing = TrainingList(Query("none", "?"), lists[0].documents, (0.0, 0.0, 0.0, -1.0), "made")
    met = list(share_best([nothing, lists[0]], documents=4))
    assert sorted(item.query.id for item in met) == ["q-cat", "title-dog", "title-sea", "title-sun"]
    texts = {document.id: document.text for document in met[0].documents}
    assert texts["dog"] == "a dog likes to run in the park"
    assert texts["cat"] == "Cats a cat sleeps most of the day"


def test_fewer_documents_than_a_window_shows_do_not_meet(lists: list[TrainingList]) -> None:
    untitled = [TrainingList(i.query, tuple(Document(d.id, d.text) for d in i.documents), i.targets, "") for i in lists]
    assert list(share_best(untitled[:1], documents=2)) == []


def test_documents_that_are_near_each_other_meet(lists: list[TrainingList], teacher: Encoder) -> None:
    met = list(share_best(lists, teacher=teacher, documents=2))
    assert {frozenset(d.id for d in item.documents) for item in met} == {
        frozenset({"cat", "dog"}),
        frozenset({"sun", "sea"}),
    }
    assert all(item.documents[item.targets.index(1.0)].id == item.query.id.removeprefix("q-") for item in met)


def test_what_is_about_as_good_is_right_too(lists: list[TrainingList], teacher: Encoder) -> None:
    twin = Document("twin", TEXTS["cat"][1], title="Cats")
    other = TrainingList(Query("q-twin", "what about cats?"), (twin, lists[1].documents[1]), (1.0, 0.0), "made")
    met = {item.query.id: item for item in share_best([lists[0], lists[1], other], teacher=teacher, documents=3)}
    assert [d.id for d, t in zip(met["q-cat"].documents, met["q-cat"].targets, strict=True) if t] == ["cat", "twin"]
    dog = Document("dog", "a dog")
    only = [TrainingList(i.query, (i.documents[0], dog), (1.0, 0.0), "made") for i in (lists[0], other)]
    assert list(share_best(only, teacher=teacher, documents=2)) == []  # both are right for both


def test_passages_are_cut_to_what_the_query_asks_about(lists: list[TrainingList], teacher: Encoder) -> None:
    words = "It rained. " * 30
    documents = [Document(d.id, f"{words} {d.text}. {words}") for d in lists[0].documents]
    long = [TrainingList(item.query, tuple(documents), item.targets, "made") for item in lists]
    query = Query("q-salt", "what is salty?")
    judged = TrainingList(query, tuple(documents), (0.0, 0.0, 0.0, 1.0), "made")
    (shared, *_) = (item for item in share_best([judged, *long[:3]], documents=4, words=12) if item.query == query)
    assert "the sea is salty and deep." in next(d.text for d in shared.documents if d.id == "sea")
    panel = next(build_panels([judged], teacher, documents=4, queries=2, words=12))
    assert "the sea is salty and deep." in next(d.text for d in panel.documents if d.id == "sea")


def test_small_differences_are_ties(lists: list[TrainingList], teacher: Encoder) -> None:
    fine = list(build_panels(lists, teacher, documents=4, queries=4))
    coarse = list(build_panels(lists, teacher, documents=4, queries=4, step=0.5))
    for a, b in zip(fine, coarse, strict=True):
        assert all(0 <= x - y < 0.5 for x, y in zip(a.targets, b.targets, strict=True))
        assert len(set(b.targets)) < len(set(a.targets))
    untitled = [TrainingList(i.query, tuple(Document(d.id, d.text) for d in i.documents), i.targets, "") for i in lists]
    lost = {item.query.id for item in build_panels(untitled, teacher, documents=2, queries=2, step=50.0)}
    assert len(lost) < len(lists)


def test_the_command_writes_panels(lists: list[TrainingList], minilm: str, tmp_path: Path) -> None:
    write_lists(tmp_path / "lists.jsonl", lists)
    for meet in ("by-chance", "near", "candidates"):
        out = tmp_path / f"{meet}.jsonl"
        arguments = [str(tmp_path / "lists.jsonl"), "--out", str(out), "--meet", meet, "--documents", "2"]
        result = CliRunner().invoke(data, ["panels", *arguments, "--teacher", minilm])
        assert result.exit_code == 0, result.output
        assert all(len(item.documents) == 2 for item in read_lists(out))
        assert f"{len(list(read_lists(out)))} lists" in " ".join(result.output.split())


def test_lists_that_give_no_panel_are_refused(lists: list[TrainingList], tmp_path: Path) -> None:
    write_lists(tmp_path / "lists.jsonl", lists)
    arguments = [str(tmp_path / "lists.jsonl"), "--out", str(tmp_path / "none.jsonl"), "--meet", "by-chance"]
    result = CliRunner().invoke(data, ["panels", *arguments, "--documents", "9"])
    assert isinstance(result.exception, InvalidInputError)
    assert "4 lists give no window of 9 documents" in str(result.exception)
    assert not (tmp_path / "none.jsonl").exists()

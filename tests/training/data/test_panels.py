"""Lists that share their documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from index.encoders import Encoder
from rankers.errors import InvalidInputError
from rankers.types import Document, Query
from tests.training.data.collection import write_collection
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
    other = TrainingList(Query("q-twin", "what about a cat?"), (twin, lists[1].documents[1]), (1.0, 0.0), "made")
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


def make_list(query: str, *ids: str, best: int = 1) -> TrainingList:
    """Give a list over `TEXTS` without titles, in which the first `best` documents are relevant."""
    documents = tuple(Document(i, TEXTS[i][1]) for i in ids)
    return TrainingList(Query(query, query), documents, tuple(float(i < best) for i in range(len(ids))), "made")


def right(item: TrainingList) -> set[str]:
    return {document.id for document, target in zip(item.documents, item.targets, strict=True) if target}


def test_what_any_list_judges_relevant_is_right(teacher: Encoder) -> None:
    lists = [
        make_list("sleeping cats", "cat", "sea"),
        make_list("stars", "sun", "cat"),
        make_list("dogs", "dog", "sea"),
        make_list("salt", "sea", "cat"),
    ]
    also = make_list("sleeping cats", "cat", "sun", best=2)  # as another first stage found them
    met = {item.query.text: right(item) for item in share_best(lists, documents=4)}
    assert met == {"sleeping cats": {"cat"}, "stars": {"sun"}, "dogs": {"dog"}, "salt": {"sea"}}
    met = {item.query.text: right(item) for item in share_best([*lists, also], documents=4)}
    assert met == {"sleeping cats": {"cat", "sun"}, "stars": {"sun"}, "dogs": {"dog"}, "salt": {"sea"}}
    near = {item.query.text: right(item) for item in share_best(lists, teacher=teacher, documents=4)}
    met = {item.query.text: right(item) for item in share_best([*lists, also], teacher=teacher, documents=4)}
    assert "sun" not in near.pop("sleeping cats")
    assert "sun" in met.pop("sleeping cats")
    assert met == near


def test_a_query_for_which_all_is_right_is_left_out(teacher: Encoder) -> None:
    lists = [make_list("animals", "cat", "dog", "sea", best=2), make_list("dogs", "dog", "sea")]
    for judge in (None, teacher):
        assert [item.query.text for item in share_best(lists, teacher=judge, documents=2)] == ["dogs"]


def test_a_query_is_in_a_window_once(teacher: Encoder) -> None:
    lists = [make_list("animals", "cat", "sea"), make_list("animals", "dog", "sea"), make_list("stars", "sun", "sea")]
    for judge in (None, teacher):
        assert list(share_best(lists, teacher=judge, documents=3)) == []
        met = list(share_best(lists, teacher=judge, documents=2))
        assert {item.query.text for item in met} == {"animals", "stars"}
        assert len(met) == len({item.query.text for item in met})


def test_collections_may_have_ids_in_common(teacher: Encoder) -> None:
    mixed = [
        TrainingList(Query(query, query), (Document("1", good), Document("2", bad)), (1.0, 0.0), query)
        for query, good, bad in (("cats", TEXTS["cat"][1], TEXTS["dog"][1]), ("seas", TEXTS["sea"][1], TEXTS["sun"][1]))
    ]
    panels = list(build_panels(mixed, teacher, documents=2, queries=2))
    assert [item.query.text for item in panels] == ["cats", "seas"]  # neither has a document of the other
    assert all(item.targets[0] > 1 > item.targets[1] for item in panels)

    other = TrainingList(Query("suns", "suns"), (Document("2", TEXTS["sun"][1]), mixed[0].documents[0]), (1.0, 0.0), "")
    for judge in (None, teacher):
        for seed in range(5):
            met = list(share_best([*mixed, other], teacher=judge, documents=2, seed=seed))
            texts = {item.query.text: item.documents[item.targets.index(1.0)].text for item in met}
            assert len(met) == 2
            assert texts["suns"] == TEXTS["sun"][1]
            assert texts.get("cats", TEXTS["cat"][1]) == TEXTS["cat"][1]
            assert texts.get("seas", TEXTS["sea"][1]) == TEXTS["sea"][1]


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
        assert {item.source for item in read_lists(out)} <= {"shared", "near", "panel:made"}
        assert "nothing was checked for leaks" in " ".join(result.output.split())


def test_titles_that_a_test_set_asks_are_refused_or_left_out(lists: list[TrainingList], tmp_path: Path) -> None:
    nothing = TrainingList(Query("none", "?"), lists[0].documents, (0.0,) * 4, "made")
    write_lists(tmp_path / "lists.jsonl", [nothing])
    queries = [Query("1", "the sea?"), Query("2", "the moon?")]
    exam = write_collection(tmp_path / "exam", [Document("a", "tides")], queries, {"test": {"1": {"a": 1, "b": 1}}})
    out = tmp_path / "out.jsonl"
    arguments = ["panels", str(tmp_path / "lists.jsonl"), "--out", str(out), "--meet", "by-chance", "--documents", "4"]
    result = CliRunner().invoke(data, [*arguments, "--against-queries", str(exam)])
    assert isinstance(result.exception, InvalidInputError)
    assert "query 'title-sea' shares all its words with '1' of exam" in str(result.exception)
    assert not out.exists()

    result = CliRunner().invoke(data, [*arguments, "--against", str(exam), "--drop-leaks"])
    assert result.exit_code == 0, result.output
    assert {item.query.id for item in read_lists(out)} == {"title-cat", "title-dog", "title-sun"}
    shown = " ".join(result.output.split())
    assert "exam: 1 of 2 judged documents are not in its corpus.jsonl and cannot be compared" in shown
    assert "left out: 1 queries and 0 documents" in shown


def test_a_folder_is_no_file_to_write_to(tmp_path: Path) -> None:
    arguments = ["panels", str(tmp_path / "none.jsonl"), "--out", str(tmp_path), "--meet", "near"]
    result = CliRunner().invoke(data, arguments)
    assert isinstance(result.exception, InvalidInputError)
    assert f"{tmp_path} is a folder" in str(result.exception)


def test_lists_that_give_no_panel_are_refused(lists: list[TrainingList], tmp_path: Path) -> None:
    write_lists(tmp_path / "lists.jsonl", lists)
    arguments = [str(tmp_path / "lists.jsonl"), "--out", str(tmp_path / "none.jsonl"), "--meet", "by-chance"]
    result = CliRunner().invoke(data, ["panels", *arguments, "--documents", "9"])
    assert isinstance(result.exception, InvalidInputError)
    assert "4 lists give no window of 9 documents" in str(result.exception)
    assert not (tmp_path / "none.jsonl").exists()

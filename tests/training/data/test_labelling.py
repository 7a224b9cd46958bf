"""Candidates and grades, or a teacher's order, make lists that can be learned from."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from rankers.types import Document, Query, Ranking, ScoreKind
from training.data.labelling import Targets, label_by_qrels, label_by_teacher, without
from training.data.training_list import TrainingList

QUERY = Query("q", "?")
IDS = [f"d{i}" for i in range(12)]


def ranking(*ids: str) -> Ranking:
    return Ranking.from_order(QUERY, [Document(i, f"text of {i}") for i in ids])


def by_qrels(found: Ranking, grades: dict[str, int], *, depth: int = 4, most_missed: int = 2) -> TrainingList | None:
    relevant = [Document(i, f"text of {i}") for i, grade in grades.items() if grade > 0]
    return label_by_qrels(
        found, grades, relevant, depth=depth, most_missed=most_missed, source="s", generator=Random(0)
    )


def by_teacher(found: Ranking, taught: Ranking, targets: Targets, depth: int = 4) -> TrainingList | None:
    return label_by_teacher(found, taught, depth=depth, targets=targets, source="s")


def test_grades_are_the_targets_in_the_order_found() -> None:
    made = by_qrels(ranking("a", "b", "c", "d", "e"), {"c": 2, "a": 1, "d": -1})
    assert made is not None
    assert [d.id for d in made.documents] == ["a", "b", "c", "d"]
    assert made.targets == (1.0, 0.0, 2.0, 0.0)
    assert (made.query, made.source) == (QUERY, "s")


@given(
    found=st.lists(st.sampled_from(IDS), unique=True, max_size=12),
    grades=st.dictionaries(st.sampled_from(IDS), st.integers(-1, 2)),
    depth=st.integers(2, 8),
    most_missed=st.integers(0, 4),
)
def test_lists_from_qrels(found: list[str], grades: dict[str, int], depth: int, most_missed: int) -> None:
    made = by_qrels(ranking(*found), grades, depth=depth, most_missed=most_missed)
    if made is None:
        return
    ids = [document.id for document in made.documents]
    added = [i for i in ids if i not in found[:depth]]
    assert len(ids) <= depth
    assert made.targets == tuple(float(max(grades.get(i, 0), 0)) for i in ids)
    assert len(set(made.targets)) > 1
    assert len(added) <= most_missed
    assert all(grades[i] > 0 for i in added)
    # What was found keeps its order, and nothing relevant that was found gives way.
    kept = [i for i in ids if i not in added]
    assert kept == [i for i in found[:depth] if i in kept]
    assert {i for i in found[:depth] if grades.get(i, 0) > 0} <= set(ids)


def test_missed_documents_take_places_of_the_second_half() -> None:
    made = by_qrels(ranking(*"abcdef"), {"x": 1, "y": 1}, depth=6)
    assert made is not None
    ids = [document.id for document in made.documents]
    assert [i for i in ids if i not in "xy"] == list("abcd")
    assert ids[:2] == ["a", "b"]
    assert set("xy") <= set(ids)


def test_missed_documents_leave_one_that_is_not_relevant() -> None:
    made = by_qrels(ranking("a", "b", "c"), {"b": 1, "w": 1, "x": 1, "y": 1, "z": 1}, depth=3, most_missed=5)
    assert made is not None
    assert [d.id for d in made.documents if d.id in "abc"] == ["a", "b"]
    assert sorted(made.targets) == [0.0, 1.0, 1.0]


def test_nothing_can_be_learned_from_equal_grades() -> None:
    assert by_qrels(ranking("a", "b"), {}) is None
    assert by_qrels(ranking("a", "b"), {"a": 1, "b": 1}) is None
    assert by_qrels(ranking(), {"a": 1}) is None


def test_an_order_is_the_target() -> None:
    made = by_teacher(ranking("a", "b", "c", "d", "e"), ranking("e", "c", "a", "x", "b"), "order")
    assert made is not None
    assert [d.id for d in made.documents] == ["a", "b", "c"]
    assert made.targets == (-2.0, -3.0, -1.0)


def test_scores_are_the_target() -> None:
    documents = [Document("a", "x"), Document("b", "x")]
    taught = Ranking.from_scores(QUERY, documents, [0.25, 0.75], score_kind=ScoreKind.SIMILARITY)
    made = by_teacher(ranking("a", "b"), taught, "scores")
    assert made is not None
    assert made.targets == (0.25, 0.75)
    equal = Ranking.from_scores(QUERY, documents, [1.0, 1.0], score_kind=ScoreKind.SIMILARITY)
    assert by_teacher(ranking("a", "b"), equal, "scores") is None
    assert by_teacher(ranking("a", "b"), ranking("a"), "order") is None


def test_documents_left_out_leave_no_gap() -> None:
    left = without(ranking("a", "b", "c"), {"b", "z"})
    assert left.ids == ("a", "c")
    assert [item.rank for item in left.items] == [1, 2]

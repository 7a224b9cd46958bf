"""What is in a test set is found, refused, and left out."""

from pathlib import Path

import pytest

from rankers.errors import InvalidInputError, NotFoundError
from rankers.types import Document, Query
from tests.training.data.collection import DOCUMENTS, QUERIES, make_list, write_collection
from training.data.leakage import HeldOut, drop_leaks, find_leaks, load_held_out, refuse_leaks

PASSAGE = "the red fox jumps over the lazy dog and runs into the dark wood before anybody in the village wakes up"
HELD_OUT = HeldOut("exam", (("t1", "How long do foxes live?"),), (("p1", PASSAGE),))
CLEAN = make_list("taxes in spring", "about tax", "about ships")


def test_copies_are_found_whatever_their_form() -> None:
    lists = [
        make_list("how long do FOXES live", "about foxes", "about dogs"),
        make_list("foxes", "about foxes", PASSAGE.upper() + "!", PASSAGE.replace("dark", "deep")),
        CLEAN,
    ]
    found = {(leak.kind, leak.id, leak.test_id): leak.similarity for leak in find_leaks(lists, [HELD_OUT])}
    near = found.pop(("document", PASSAGE.replace("dark", "deep"), "p1"))
    assert 0.7 <= near < 1
    assert found == {
        ("query", "how long do FOXES live", "t1"): 1.0,
        ("document", PASSAGE.upper() + "!", "p1"): 1.0,
    }


def test_the_title_of_a_document_counts() -> None:
    held_out = HeldOut("exam", (), (("p", Document("p", PASSAGE, "Foxes").content),))
    assert find_leaks([make_list("q", f"Foxes {PASSAGE}", "other")], [held_out])


def test_an_excerpt_leaks_and_what_has_a_held_out_passage_among_much_else_does_not() -> None:
    words = [f"word{i}" for i in range(80)]
    long, excerpt, short = " ".join(words), " ".join(words[20:65]), " ".join(words[20:41])
    found = find_leaks([make_list("q", excerpt, short)], [HeldOut("exam", (), (("p", long),))])
    assert [(leak.id, leak.test_id, leak.similarity) for leak in found] == [(excerpt, "p", 1.0)]
    assert find_leaks([make_list("q", long, "x")], [HeldOut("exam", (), (("p", excerpt),))]) == []
    most = " ".join([*words[20:52], *(f"other{i}" for i in range(12))])  # 30 of 42 trigrams
    (leak,) = find_leaks([make_list("q", most, "x")], [HeldOut("exam", (), (("p", long),))])
    assert leak.similarity == pytest.approx(30 / 42)


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[int, int]] = []
    find_leaks([CLEAN], [HELD_OUT, HELD_OUT], on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(6, 6)]


def test_a_leak_is_refused_by_name_and_with_advice() -> None:
    refuse_leaks([])
    leaks = find_leaks([make_list("how long do foxes live", "x y z", PASSAGE)], [HELD_OUT])
    with pytest.raises(InvalidInputError, match=r"1 queries and 1 documents(.|\n)*'t1' of exam(.|\n)*--drop-leaks"):
        refuse_leaks(leaks)
    with pytest.raises(InvalidInputError, match="and 12 more"):
        refuse_leaks(leaks * 11)


def test_what_leaks_is_left_out() -> None:
    lists = [
        make_list("how long do foxes live", "x", "y"),
        make_list("keeps two", PASSAGE, "x", "y"),
        make_list("keeps one", PASSAGE, "x"),
        make_list("keeps equal ones", PASSAGE, "x", "y", targets=[1.0, 0.0, 0.0]),
        CLEAN,
    ]
    leaks = find_leaks(lists, [HELD_OUT])
    kept = list(drop_leaks(lists, leaks))
    assert kept == [make_list("keeps two", "x", "y", targets=[-1.0, -2.0]), CLEAN]
    assert find_leaks(kept, [HELD_OUT]) == []


def test_only_what_is_judged_is_held_out(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "exam")
    held_out = load_held_out(folder)
    assert dict(held_out.queries).keys() == {"ship", "tax"}
    assert dict(held_out.documents).keys() == {"ship-1", "ship-2", "tax-4"}
    assert load_held_out(folder, documents=False).documents == ()
    assert dict(load_held_out(folder, split="train").queries).keys() == {"fox", "dog", "cat"}


def test_a_test_set_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_held_out(tmp_path / "none")
    folder = write_collection(tmp_path / "exam")
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(InvalidInputError, match="--against-queries"):
        load_held_out(folder)
    assert load_held_out(folder, documents=False).queries


def test_judged_documents_without_a_text_are_counted(tmp_path: Path) -> None:
    some = load_held_out(write_collection(tmp_path / "some", [d for d in DOCUMENTS if d.id != "ship-2"]))
    assert (len(some.documents), some.missing) == (2, 1)
    none = write_collection(tmp_path / "none", [d for d in DOCUMENTS if d.id.startswith("fox")])
    with pytest.raises(InvalidInputError, match="none of the 3 documents judged in test"):
        load_held_out(none)
    assert load_held_out(none, documents=False).missing == 0


def test_the_same_id_with_another_text_is_no_leak(tmp_path: Path) -> None:
    held_out = load_held_out(write_collection(tmp_path / "exam"))
    assert {document.id for document in DOCUMENTS} >= dict(held_out.documents).keys()
    other = make_list("nothing alike", "tax-4", "ship-1")
    assert find_leaks([other], [held_out]) == []
    assert find_leaks([make_list(QUERIES["tax"].text, "a", "b")], [held_out])[0].test_id == Query("tax", "").id

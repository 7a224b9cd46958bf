"""Written answers: a well-formed one is read exactly, any other as a person would read it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.listwise.labels import LETTERS
from rankers.listwise.permutation import Parsed, Repair, parse_permutation

NUMBERS = tuple(str(i) for i in range(1, 21))
FORM, EXTRA, DUPLICATE = Repair.FORM, Repair.EXTRA_TEXT, Repair.DUPLICATE
UNKNOWN, MISSING, NO_ANSWER = Repair.UNKNOWN, Repair.MISSING, Repair.NO_ANSWER

label_sets = st.sampled_from([NUMBERS, LETTERS]).flatmap(
    lambda labels: st.integers(1, len(labels)).map(lambda count: labels[:count])
)
fragments = st.sampled_from(
    [
        "[",
        "]",
        ">",
        " > ",
        "[1]",
        "[2] > [1]",
        "[B]",
        "A",
        "b",
        "3",
        "20",
        "1. ",
        "\n",
        ", ",
        "Passage ",
        ": ",
        "words ",
    ]
)


@given(st.data(), label_sets)
def test_any_permutation_in_the_form_asked_for_is_read_exactly(data: st.DataObject, labels: tuple[str, ...]) -> None:
    order = data.draw(st.permutations(range(len(labels))))
    before, after = data.draw(st.sampled_from(["", "\n", " "])), data.draw(st.sampled_from(["", "\n"]))
    text = before + " > ".join(f"[{labels[i]}]" for i in order) + after
    assert parse_permutation(text, labels) == Parsed(tuple(order))


@given(st.one_of(st.text(max_size=60), st.lists(fragments, max_size=20).map("".join)), label_sets)
def test_any_text_gives_a_permutation_and_only_a_whole_one_needs_no_repair(text: str, labels: tuple[str, ...]) -> None:
    parsed = parse_permutation(text, labels)
    assert sorted(parsed.order) == list(range(len(labels)))
    assert (not parsed.repairs) == (text.strip() == " > ".join(f"[{labels[i]}]" for i in parsed.order))
    assert len(set(parsed.repairs)) == len(parsed.repairs)


@given(st.text(string.ascii_letters + " .,!?\n", max_size=60).map(lambda text: f"{text}. 20 passages are provided."))
def test_numbers_in_prose_are_no_answer(text: str) -> None:
    assert parse_permutation(text, NUMBERS) == Parsed(tuple(range(20)), (NO_ANSWER,))


def read(text: str, count: int = 5) -> tuple[list[int], set[Repair]]:
    """Labels best first, without those that were appended, and the repairs."""
    parsed = parse_permutation(text, NUMBERS[:count])
    return [place + 1 for place in parsed.order], set(parsed.repairs)


@pytest.mark.parametrize(
    ("text", "order", "repairs"),
    [
        # Forms that language models write; the labels of the window are 1 to 5.
        ("[3] > [1] > [3] > [5] > [4] > [2]", [3, 1, 5, 4, 2], {DUPLICATE}),
        ("[3] > [1] > [9] > [5] > [4] > [2]", [3, 1, 5, 4, 2], {UNKNOWN}),
        ("[3] > [5]", [3, 5, 1, 2, 4], {MISSING}),
        ("3] > [1] > [5] > [4] > [2]", [3, 1, 5, 4, 2], {FORM}),
        ("3 > [1] > [5] > [4] > [2] > [3]", [3, 1, 5, 4, 2], {FORM, DUPLICATE}),
        ("711 > [1] > [5] > [4] > [2] > [3]", [1, 5, 4, 2, 3], {FORM, UNKNOWN}),
        ("[3] [1] > [5] > [4] > [2]", [3, 1, 5, 4, 2], {FORM}),
        ("[3]>[1]>[5]>[4]>[2]", [3, 1, 5, 4, 2], {FORM}),
        ("［3］ ＞ ［1］ ＞ ［5］ ＞ ［4］ ＞ ［2］", [3, 1, 5, 4, 2], {FORM}),
        ("[3, 1, 5, 4, 2]", [3, 1, 5, 4, 2], {FORM}),
        ("[3, 1] > [5] > [4, 2]", [3, 1, 5, 4, 2], {FORM}),
        ("3 > 1 > 5 > 4 > 2", [3, 1, 5, 4, 2], {FORM}),
        ("3, 1, 5, 4, 2.", [3, 1, 5, 4, 2], {FORM}),
        ("3\n1\n5\n4\n2\n", [3, 1, 5, 4, 2], {FORM}),
        ("**[3]** > **[1]** > **[5]** > **[4]** > **[2]**", [3, 1, 5, 4, 2], {FORM}),
        # Places of a numbered list are not labels.
        ("1. [3] > [1] > [5] > [4] > [2]", [3, 1, 5, 4, 2], {FORM}),
        ("1. [3] 2. [1] 3. [5] 4. [4] 5. [2]", [3, 1, 5, 4, 2], {FORM}),
        ("1. [3] > 2. [1] > 3. [5] > 4. [4] > 5. [2]", [3, 1, 5, 4, 2], {FORM}),
        ("1. [3] > [1] 2. [3] > [5] 3. [3] > [4]", [3, 1, 5, 4, 2], {FORM, DUPLICATE, MISSING}),
        ("1) 3\n2) 1\n3) 5\n4) 4\n5) 2", [3, 1, 5, 4, 2], {FORM}),
        ("1. Passage 3\n2. Passage 1\n3. Passage 5", [3, 1, 5, 2, 4], {FORM, EXTRA, MISSING}),
        # Cut off within a label, which may have been another.
        ("[3] > [5] > [1", [3, 5, 1, 2, 4], {FORM, MISSING}),
        ("[3] > [5] > [4] > [2] > [1] > [5] > [", [3, 5, 4, 2, 1], {FORM, DUPLICATE}),
        # Words around the answer.
        ("100% of the passages should be included. [3] > [1] > [5] > [4] > [2]", [3, 1, 5, 4, 2], {EXTRA}),
        ("Sure!\n[3] > [1] > [5] > [4] > [2]\nI hope this helps.", [3, 1, 5, 4, 2], {EXTRA}),
        ("The ranking of 5 passages: 3 > 1 > 5 > 4 > 2, I think", [3, 1, 5, 4, 2], {FORM, EXTRA}),
        ("Ranking: 3, 1, 5, 4, 2", [3, 1, 5, 4, 2], {FORM, EXTRA}),
        ("Passage 3 > Passage 1 > passage #5", [3, 1, 5, 2, 4], {FORM, EXTRA, MISSING}),
        ("[3] tells of 2 fleas.\n[1] has 1918 in it.", [3, 1, 2, 4, 5], {FORM, EXTRA, MISSING}),
        ("[1], [2] and [4] name it. [4] > [2] > [1]", [4, 2, 1, 3, 5], {EXTRA, MISSING}),
        ("First [1] > [2], also [3] > [1]. So [3] > [1] > [2]", [3, 1, 2, 4, 5], {EXTRA, MISSING}),
        ("[3] > [1] > as I said > [5] > [4]", [3, 1, 5, 4, 2], {FORM, EXTRA, MISSING}),
        # One label.
        ("[4]", [4, 1, 2, 3, 5], {MISSING}),
        ("4", [4, 1, 2, 3, 5], {FORM, MISSING}),
        ("Passage 4", [4, 1, 2, 3, 5], {FORM, EXTRA, MISSING}),
        # Nothing that is an answer.
        ("", [1, 2, 3, 4, 5], {NO_ANSWER}),
        ("\n\n[] > []", [1, 2, 3, 4, 5], {NO_ANSWER}),
        ("The ranking should be from 1 to 5.", [1, 2, 3, 4, 5], {NO_ANSWER}),
        ("5 passages have been provided.", [1, 2, 3, 4, 5], {NO_ANSWER}),
        ("It happened at 12:30 on 26 January, and 2 things changed", [1, 2, 3, 4, 5], {NO_ANSWER}),
        ("[7] > [8]", [1, 2, 3, 4, 5], {UNKNOWN, NO_ANSWER}),
    ],
)
def test_forms_of_answers(text: str, order: list[int], repairs: set[Repair]) -> None:
    assert read(text) == (order, repairs)


@pytest.mark.parametrize(
    ("text", "order", "repairs"),
    [
        ("B] > [C] > [A]", "BCA", {FORM}),
        ("B > C > A", "BCA", {FORM}),
        ("[b] > [c] > [a]", "BCA", {FORM}),
        ('["B", "C", "A"]', "BCA", {FORM}),
        ("1. B\n2. C\n3. A", "BCA", {FORM}),
        ("I think a passage like C is a good one: [B] > [C] > [A]", "BCA", {EXTRA}),
        ("Passage B says so, and document C as well.", "BCA", {FORM, EXTRA, MISSING}),
        ("A good question.", "ABC", {NO_ANSWER}),
        ("[2] > [3] > [1]", "ABC", {UNKNOWN, NO_ANSWER}),
    ],
)
def test_letters(text: str, order: str, repairs: set[Repair]) -> None:
    parsed = parse_permutation(text, ("A", "B", "C"))
    assert ("".join("ABC"[place] for place in parsed.order), set(parsed.repairs)) == (order, repairs)


def test_letters_of_both_cases_are_different_labels() -> None:
    assert parse_permutation("[b] > [B] > [a]", ("A", "B", "a", "b")) == Parsed((3, 1, 2, 0), (MISSING,))


def test_a_long_answer_is_read_in_linear_time() -> None:
    # A pattern that backtracks over these would not end.
    for text in ("[1" * 20_000, "1 > " * 20_000, "1. " * 20_000, " " * 50_000 + "x", "[1] " * 20_000 + "x"):
        assert sorted(parse_permutation(text, NUMBERS).order) == list(range(20))

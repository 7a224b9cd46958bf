"""Labels are verified against the tokenizer, and nothing in a text can pass for one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rankers.errors import ConfigError, TooLargeError
from rankers.listwise.labels import LETTERS, check_labels, defuse
from rankers.llm.prompt_tokenizer import PromptTokenizer
from tests.rankers.models import byte_tokenizer

LABEL = re.compile(r"\[\s*([^\W\d_]|\d{1,4})\s*\]")
brackets = st.sampled_from(["[", "]", "[[", "A", "b", "12", " ", "\n", "\u200b", "［", "］", "é", "word"])


@given(st.lists(st.one_of(brackets, st.text(max_size=3)), max_size=12).map("".join))
def test_no_label_survives_and_defusing_again_changes_nothing(text: str) -> None:
    safe = defuse(text)
    assert not LABEL.search(safe)
    assert defuse(safe) == safe


@given(st.text(st.characters(exclude_characters="[［")))
def test_text_without_brackets_is_left_alone(text: str) -> None:
    assert defuse(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("[A]", "(A)"),
        ("see [ B ] and [z]", "see (B) and (z)"),
        ("[12] [1234]", "(12) (1234)"),
        ("[[A]]", "[(A)]"),
        ("[\u200bA\u200b] ［A］", "(A) (A)"),
        ("[\nA\n]", "(A)"),
        ("[AB] [12345] [] [see 3] [A, B]", "[AB] [12345] [] [see 3] [A, B]"),
    ],
)
def test_examples(text: str, safe: str) -> None:
    assert defuse(text) == safe


def test_smollm2_carries_all_letters_as_one_token_after_a_bracket(smollm2: str) -> None:
    text = PromptTokenizer(AutoTokenizer.from_pretrained(smollm2))
    labels = check_labels(LETTERS, contexts=("\n[", "<|im_start|>assistant\n["), encode=text.encode_template)
    assert labels.labels == LETTERS
    for label, token in zip(labels.labels, labels.ids, strict=True):
        assert text.encode_template(f"assistant\n[{label}")[-2:] == [text.encode("[")[0], token]
    assert len(set(labels.ids)) == 52
    assert labels.refusal == ""


def encode(text: str) -> list[int]:
    return PromptTokenizer(byte_tokenizer()).encode_template(text)


def test_the_set_ends_where_a_label_takes_more_than_one_token() -> None:
    labels = check_labels(("A", "B", "xy", "C"), contexts=("[",), encode=encode)
    assert labels.labels == ("A", "B")
    labels.require(2)
    with pytest.raises(ConfigError, match=r"windows of 3 need 3 labels, there are 2\. label 'xy' is not one token"):
        labels.require(3)


def test_the_set_ends_where_a_label_merges_with_the_text_before_it() -> None:
    # The byte tokenizer has a merge of "A" and "A".
    with pytest.raises(ConfigError, match="label 'A' is not one token after 'A'"):
        check_labels(("A", "B"), contexts=("A",), encode=encode)


def test_a_label_twice_ends_the_set() -> None:
    labels = check_labels(("A", "B", "A"), contexts=("[",), encode=encode)
    assert labels.labels == ("A", "B")
    assert labels.refusal == "label 'A' is the same token as label 'A'"


def test_a_label_must_be_the_same_token_wherever_it_stands() -> None:
    def encode_by_place(text: str) -> list[int]:
        return [ord(c) + (1000 if text.startswith("#") else 0) for c in text]

    with pytest.raises(ConfigError, match="label 'A' is token 65 in one place and 1065 in another"):
        check_labels(("A", "B"), contexts=("[", "#["), encode=encode_by_place)


def test_more_documents_than_labels_in_one_window_are_too_large() -> None:
    labels = check_labels(("A", "B"), contexts=("[",), encode=encode)
    with pytest.raises(TooLargeError, match="3 documents in one window, but there are 2 labels"):
        labels.check_window(3)

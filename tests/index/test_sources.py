from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.python_docs import LEAST_WORDS, MOST_WORDS, TAIL_WORDS, passages
from index.sources import read_beir_queries, read_documents
from rankers.errors import InvalidInputError, NotFoundError
from rankers.types import Document, Query


def write(path: Path, *records: object) -> str:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return str(path)


def test_reads_jsonl(tmp_path: Path) -> None:
    source = write(
        tmp_path / "d.jsonl",
        {
            "id": "a",
            "text": "x",
            "title": "t",
            "features": {"price": 2, "age": 0.5},
            "metadata": {"k": [1]},
            "url": "u",
        },
        {"_id": 7, "text": "", "title": None, "features": None, "metadata": None},
    )
    assert list(read_documents(source)) == [
        Document("a", "x", "t", {"price": 2, "age": 0.5}, {"k": [1]}),
        Document("7", ""),
    ]


def test_reads_a_beir_directory(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", {"_id": "d1", "title": "T", "text": "x", "metadata": {}})
    write(tmp_path / "queries.jsonl", {"_id": "q2", "text": "why", "metadata": {}}, {"_id": "q1", "text": "how"})
    assert list(read_documents(str(tmp_path))) == [Document("d1", "x", "T")]
    assert read_beir_queries(tmp_path) == [Query("q2", "why"), Query("q1", "how")]


def test_skips_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "\xc3\xa9"}\r\n\r\n{"id": "b", "text": "y"}')
    assert list(read_documents(str(path))) == [Document("a", "é"), Document("b", "y")]


@pytest.mark.parametrize(
    ("line", "message", "field"),
    [
        (b'{"id": "a", "text": ', "not JSON in UTF-8", None),
        (b'{"id": "a", "text": "\xff"}', "not JSON in UTF-8", None),
        (b'["a"]', r"expected a JSON object, got \[\"a\"\]", None),
        (b'{"text": "x"}', "'id' .* got null", "id"),
        (b'{"id": "", "text": "x"}', "'id' .* not empty", "id"),
        (b'{"id": true, "text": "x"}', "'id' .* got true", "id"),
        (b'{"id": "a"}', "'text' must be a string, got null", "text"),
        (b'{"id": "a", "text": ["x"]}', r"'text' must be a string, got \[\"x\"\]", "text"),
        (b'{"id": "a", "text": "x", "title": 3}', "'title' must be a string, got 3", "title"),
        (b'{"id": "a", "text": "x", "features": [1]}', "'features' must be an object", "features"),
        (b'{"id": "a", "text": "x", "features": {"p": "1"}}', "feature 'p' must be a number", "features.p"),
        (b'{"id": "a", "text": "x", "features": {"p": true}}', "feature 'p' must be a number", "features.p"),
        (b'{"id": "a", "text": "x", "metadata": "m"}', "'metadata' must be an object", "metadata"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str, field: str | None) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"id": "fine", "text": "x"}\n\n' + line + b"\n")
    with pytest.raises(InvalidInputError, match=rf"d\.jsonl, line 3: .*{message}") as caught:
        list(read_documents(str(path)))
    assert caught.value.field == field


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere.*python-docs"):
        list(read_documents(str(tmp_path / "nowhere")))
    with pytest.raises(NotFoundError, match=r"corpus\.jsonl"):
        list(read_documents(str(tmp_path)))
    with pytest.raises(NotFoundError, match=r"queries\.jsonl"):
        read_beir_queries(tmp_path)


def test_python_docs_are_passages_of_the_language_reference() -> None:
    documents = list(read_documents("python-docs"))
    assert len({document.id for document in documents}) == len(documents) > 400
    first = next(document for document in documents if document.id == "with-1")
    assert first.text.startswith('The "with" statement\n\nThe "with" statement is used to wrap')
    assert first.title == first.metadata["topic"] == "with"
    lengths = [len(document.text.split()) for document in documents]
    within = sum(LEAST_WORDS <= length <= MOST_WORDS for length in lengths)
    assert within / len(lengths) > 0.8
    assert len({document.text for document in documents}) == len(documents)


@given(st.lists(st.lists(st.sampled_from(["word", "end.", "code:\n "]), min_size=1, max_size=200), max_size=8))
def test_passages_lose_no_word_and_keep_their_size(words: list[list[str]]) -> None:
    paragraphs = [" ".join(paragraph) for paragraph in words]
    made = passages(paragraphs)
    assert " ".join(made).split() == " ".join(paragraphs).split()
    assert all(text and text == text.rstrip() for text in made)
    longest = max((len(paragraph) for paragraph in words), default=0)
    assert all(len(text.split()) <= max(MOST_WORDS, longest) + TAIL_WORDS for text in made)

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.corpus import LOOKUP_BATCH, WRITE_BATCH, Corpus
from rankers.errors import InvalidInputError, NotFoundError
from rankers.types import Document
from tests.index.documents import ANIMALS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
DOCUMENTS = st.builds(
    Document,
    id=TEXT,
    text=TEXT,
    title=TEXT,
    features=st.dictionaries(TEXT, FINITE, max_size=3),
    metadata=st.dictionaries(TEXT, JSON, max_size=3),
)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with Corpus(tmp_path / "new" / "corpus.sqlite") as opened:
        yield opened


def numbered(count: int, *, text: str = "text") -> list[Document]:
    return [Document(str(i), f"{text} {i}") for i in range(count)]


def test_keeps_documents_whole_and_in_order(corpus: Corpus) -> None:
    assert corpus.append(ANIMALS) == 4
    assert tuple(corpus.stream()) == ANIMALS
    assert corpus.get("cat") == ANIMALS[2]
    assert len(corpus) == 4


def test_survives_being_opened_again(tmp_path: Path) -> None:
    with Corpus(tmp_path / "c.sqlite") as corpus:
        corpus.append(ANIMALS)
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert tuple(corpus.stream()) == ANIMALS


def test_a_replaced_document_keeps_its_place_and_a_deleted_one_loses_it(corpus: Corpus) -> None:
    corpus.append(numbered(4))
    assert corpus.append([Document("1", "new"), Document("9", "last"), Document("1", "newest")]) == 3
    assert [document.id for document in corpus.stream()] == ["0", "1", "2", "3", "9"]
    assert corpus.get("1").text == "newest"
    corpus.delete(["0"])
    corpus.append([Document("0", "back")])
    assert [document.id for document in corpus.stream()] == ["1", "2", "3", "9", "0"]


def test_delete_counts_what_was_there(corpus: Corpus) -> None:
    corpus.append(numbered(3))
    assert corpus.delete(["0", "2", "unknown", "0"]) == 2
    assert corpus.delete([]) == 0
    assert [document.id for document in corpus.stream()] == ["1"]


def test_find_leaves_out_what_is_missing(corpus: Corpus) -> None:
    count = 2 * LOOKUP_BATCH + 1
    corpus.append(numbered(count))
    found = corpus.find([str(i) for i in range(count + 5)])
    assert found == {document.id: document for document in numbered(count)}
    assert corpus.find([]) == {}
    with pytest.raises(NotFoundError, match="'nobody'"):
        corpus.get("nobody")


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(DOCUMENTS, max_size=8))
def test_any_text_and_json_comes_back_as_it_was(corpus: Corpus, documents: list[Document]) -> None:
    corpus.delete([document.id for document in corpus.stream()])
    corpus.append(documents)
    expected = {document.id: document for document in documents}
    assert {document.id: document for document in corpus.stream()} == expected
    assert corpus.find(list(expected)) == expected


@pytest.mark.parametrize(
    "bad",
    [
        Document("bad", "x", features={"price": float("nan")}),
        Document("bad", "x", metadata={"when": object()}),
        Document("bad", "half a pair: \ud800"),
    ],
)
def test_an_append_that_fails_leaves_nothing_behind(corpus: Corpus, bad: Document) -> None:
    corpus.append(ANIMALS)
    with pytest.raises(InvalidInputError, match="'bad' cannot be stored"):
        corpus.append([*numbered(WRITE_BATCH + 1), bad])
    assert tuple(corpus.stream()) == ANIMALS


def test_a_stream_shows_one_moment_while_others_write(corpus: Corpus) -> None:
    corpus.append(numbered(10))
    stream = corpus.stream()
    first = next(stream)
    corpus.append([Document("new", "text"), Document("5", "changed")])
    corpus.delete(["7"])
    assert [first, *stream] == numbered(10)
    assert corpus.append(corpus.stream()) == 10  # a corpus may even be fed from itself


def test_readers_neither_wait_for_a_writer_nor_see_half_of_its_work(corpus: Corpus) -> None:
    corpus.append(ANIMALS)

    def documents() -> Iterator[Document]:
        yield from numbered(WRITE_BATCH)
        with Corpus(corpus.path) as second:
            assert len(corpus) == len(second) == 4
            assert corpus.find(["0"]) == {}

    assert corpus.append(documents()) == WRITE_BATCH
    assert len(corpus) == WRITE_BATCH + 4


def test_threads_share_a_corpus(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def work(worker: int) -> int:
        start.wait()
        with Corpus(tmp_path / "c.sqlite") as own:  # all make the file at once
            for i in range(10):
                own.append([Document(f"{worker}-{i}", "text")])
                own.find([f"{other}-{i}" for other in range(8)])
        return 10

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 80
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert len(corpus) == 80
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda i: corpus.get(f"{i}-0").id, range(8))) == [f"{i}-0" for i in range(8)]


def test_a_process_that_dies_while_it_adds_leaves_the_documents_as_they_were(corpus: Corpus) -> None:
    corpus.append(ANIMALS)
    program = """
import os, signal, sys
from pathlib import Path
from index.corpus import Corpus
from rankers.types import Document

def documents():
    for i in range(5000):
        yield Document(str(i), "text " * 100)
    os.kill(os.getpid(), signal.SIGKILL)

Corpus(Path(sys.argv[1])).append(documents())
"""
    process = subprocess.run([sys.executable, "-c", program, str(corpus.path)], check=False)
    assert process.returncode == -9
    assert tuple(corpus.stream()) == ANIMALS
    assert corpus.append(numbered(1)) == 1


def test_a_change_is_made_as_a_whole(corpus: Corpus) -> None:
    corpus.append(ANIMALS)
    corpus.change([Document("dog", "new"), Document("owl", "night")], ["cat", "nobody"], state={"version": "2"})
    assert [document.id for document in corpus.stream()] == ["fox", "dog", "bird", "owl"]
    assert (corpus.get("dog").text, corpus.state("version"), corpus.state("other")) == ("new", "2", None)
    with pytest.raises(InvalidInputError, match="'odd' cannot be stored"):
        corpus.change([Document("bat", "wing"), Document("odd", "\ud800")], ["fox"], state={"version": "3"})
    assert [document.id for document in corpus.stream()] == ["fox", "dog", "bird", "owl"]
    assert corpus.state("version") == "2"
    corpus.change(state={"version": "3"})
    assert corpus.state("version") == "3"


def test_metadata_is_given_for_documents_that_have_any(corpus: Corpus) -> None:
    corpus.append(ANIMALS)
    assert corpus.metadata() == {"cat": ANIMALS[2].metadata}

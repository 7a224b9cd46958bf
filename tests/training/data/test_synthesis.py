"""Documents drawn, queries written once, consistent ones kept, and a collection that others read."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from index.encoders import Encoder
from rankers.errors import InvalidInputError, WorkerError
from rankers.llm.chat_engine import ChatEngine
from rankers.types import Document, Query, Ranking
from tests.rankers.llm.fake_server import FakeServer, Json, Status
from training.data.query_writer import QueryWriter
from training.data.synthesis import (
    BATCH,
    SETTINGS_FILE,
    WRITTEN_FILE,
    check_folder,
    draw_documents,
    hash_documents,
    keep_consistent,
    write_collection,
    write_queries,
)
from training.evaluation.datasets import load_dataset

LONG = "and that is all that there is to say about it, however long one may wish to talk in the evening by the fire"
DOCUMENTS = [Document(f"d{i}", f"the number {i} comes after {i - 1} {LONG}") for i in range(6)]


def silent(phase: str, done: int, total: int) -> None:
    """Report to nobody."""


def ask_about_number(request: Json) -> str:
    shown = request["messages"][-1]["content"].rpartition("the number ")[2]
    return f"what comes after the number {shown.split()[0]}"


class ById:
    """Finds the document whose number a query ends in, and others above it for odd numbers."""

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        rankings = []
        for query in queries:
            number = int(query.text.split()[-1])
            others = [document for document in DOCUMENTS if document.id != f"d{number}"]
            place = 3 if number % 2 else 0
            ordered = [*others[:place], DOCUMENTS[number], *others[place:]]
            rankings.append(Ranking.from_order(query, ordered).top(k))
        return rankings


def test_written_consistent_and_readable(tmp_path: Path) -> None:
    with FakeServer(answers=ask_about_number) as server, ChatEngine(server.url, model="m") as engine:
        written = write_queries(DOCUMENTS, QueryWriter(engine), tmp_path, settings={}, on_progress=silent)
    assert written == {f"d{i}": f"what comes after the number {i}" for i in range(6)}
    kept = keep_consistent(written, ById(), top_k=3, on_progress=silent)
    assert kept.keys() == {"d0", "d2", "d4"}
    assert keep_consistent(written, ById(), top_k=4, on_progress=silent) == written
    write_collection(tmp_path, DOCUMENTS, kept)
    dataset = load_dataset(str(tmp_path), split="train")
    assert dataset.documents is not None
    assert list(dataset.documents()) == DOCUMENTS
    assert dataset.queries[1] == Query("synthetic-d2", written["d2"])
    assert dataset.qrels == {f"synthetic-{i}": {i: 1} for i in kept}


def test_what_has_been_written_is_not_asked_for_again(tmp_path: Path) -> None:
    settings = {"model": "m"}
    calls: list[tuple[str, int, int]] = []

    def write(count: int, server: FakeServer) -> dict[str, str]:
        with ChatEngine(server.url, model="m") as engine:
            return write_queries(
                DOCUMENTS[:count],
                QueryWriter(engine),
                tmp_path,
                settings=settings,
                on_progress=lambda *call: calls.append(call),
            )

    with FakeServer(answers=ask_about_number) as server:
        first = write(3, server)
        path = tmp_path / WRITTEN_FILE
        path.write_text(path.read_text() + '{"document_id": "d3", "qu')  # killed while it wrote
        assert write(6, server).items() > first.items()
        assert write(6, server).keys() == {f"d{i}" for i in range(6)}
        assert len(server.received) == 6
    assert calls == [("writing queries", 3, 3), ("writing queries", 6, 6)]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    with FakeServer(answers=ask_about_number) as server, ChatEngine(server.url, model="m") as engine:
        writer = QueryWriter(engine)
        write_queries(DOCUMENTS[:1], writer, tmp_path, settings={"seed": 1}, on_progress=silent)
        with pytest.raises(InvalidInputError, match="other settings"):
            write_queries(DOCUMENTS[:1], writer, tmp_path, settings={"seed": 2}, on_progress=silent)


def test_unusable_and_repeated_queries_are_left_out(tmp_path: Path) -> None:
    answers = ["What is it?", "no", "what is IT"]
    with FakeServer(answers=answers) as server, ChatEngine(server.url, model="m", max_in_flight=1) as engine:
        written = write_queries(DOCUMENTS[:3], QueryWriter(engine), tmp_path, settings={}, on_progress=silent)
    assert written == {"d0": "What is it?"}


def test_documents_are_drawn(encoder: Encoder) -> None:
    short = Document("short", "too little to ask about")

    def draw(count: int, clusters: int | None, seed: int = 0, encoder: Encoder | None = encoder) -> list[str]:
        drawn = draw_documents(
            [short, *DOCUMENTS],
            count,
            clusters=clusters,
            temperature=1.0,
            seed=seed,
            encoder=encoder,
            on_progress=silent,
        )
        return [document.id for document in drawn]

    for clusters in (None, 2):
        assert draw(100, clusters) == [document.id for document in DOCUMENTS]
        assert len(draw(3, clusters)) == 3
        assert draw(3, clusters) == draw(3, clusters)
        assert len({tuple(draw(3, clusters, seed)) for seed in range(5)}) > 1
    with pytest.raises(InvalidInputError, match="need an encoder"):
        draw(3, 2, encoder=None)
    with pytest.raises(InvalidInputError, match="none of the 1 documents has 20 words"):
        draw_documents([short], 1, clusters=None, temperature=1.0, seed=0, encoder=None, on_progress=silent)


def test_a_failing_server_loses_nothing_that_was_written(tmp_path: Path) -> None:
    with FakeServer(answers=ask_about_number) as server, ChatEngine(server.url, model="m") as engine:
        write_queries(DOCUMENTS[:2], QueryWriter(engine), tmp_path, settings={}, on_progress=silent)
    with (
        FakeServer(answers=ask_about_number, faults=[Status(400)] * 4) as server,
        ChatEngine(server.url, model="m") as engine,
        pytest.raises(WorkerError),
    ):
        write_queries(DOCUMENTS, QueryWriter(engine), tmp_path, settings={}, on_progress=silent)
    assert (tmp_path / WRITTEN_FILE).read_text().count("document_id") == 2


@pytest.mark.parametrize("place", [0, BATCH])
def test_a_refused_document_is_not_asked_about_again(tmp_path: Path, place: int) -> None:
    """The last of a batch and one too many is refused as one of several."""
    documents = [Document(f"d{i}", f"the number {i} comes after {i - 1} {LONG}") for i in range(BATCH + 1)]

    def answer(request: Json) -> str | Json:
        query = ask_about_number(request)
        refusal = {"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}
        return {"choices": [refusal]} if query.split()[-1] == str(place) else query

    with FakeServer(answers=answer) as server, ChatEngine(server.url, model="m") as engine:
        for _ in range(2):
            written = write_queries(documents, QueryWriter(engine), tmp_path, settings={}, on_progress=silent)
            assert written.keys() == {document.id for document in documents} - {f"d{place}"}
        assert len(server.received) == BATCH + 1


def test_a_collection_of_others_is_not_replaced(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_collection(source, DOCUMENTS, {})
    for folder in (source, tmp_path / "source" / ".." / "source"):
        with pytest.raises(InvalidInputError, match="has the documents of"):
            check_folder(folder, str(source))
    with pytest.raises(InvalidInputError, match="has the documents of"):
        check_folder(source, str(source / "corpus.jsonl"))
    for i, there in enumerate(("corpus.jsonl", "queries.jsonl", "qrels/train.tsv")):
        path = tmp_path / str(i) / there
        path.parent.mkdir(parents=True)
        path.write_text("")
        with pytest.raises(InvalidInputError, match=r"was not written here .*choose another folder"):
            check_folder(tmp_path / str(i), str(source))
    check_folder(tmp_path / "new", str(source))
    (source / SETTINGS_FILE).write_text("{}")
    check_folder(source, "documents.jsonl")


def test_documents_are_told_apart_by_ids_and_texts() -> None:
    variants = [("a", "x", ""), ("b", "x", ""), ("a", "y", ""), ("a", "x", "t"), ("a", "", "x")]
    hashes = {hash_documents([Document(i, text, title=title)]) for i, text, title in variants}
    assert len(hashes) == len(variants)
    assert hash_documents(DOCUMENTS) == hash_documents(list(DOCUMENTS)) != hash_documents(DOCUMENTS[::-1])

from pathlib import Path

import pytest

from rankers.errors import InvalidInputError, NotFoundError
from tests.training.collection import DOCUMENTS, QRELS, QUERIES, write_beir
from training.evaluation.datasets import load_dataset, load_trec, read_qrels


def test_a_beir_directory_gives_its_judged_queries_and_documents(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_beir(tmp_path / "tiny")))
    assert dataset.name == "tiny"
    assert dataset.queries == tuple(QUERIES[:3])
    assert dataset.qrels == QRELS
    assert dataset.documents is not None
    assert list(dataset.documents()) == DOCUMENTS
    assert list(dataset.documents()) == DOCUMENTS  # streams anew


def test_trec_files_give_the_same(tmp_path: Path) -> None:
    beir = write_beir(tmp_path / "tiny")
    topics, qrels = tmp_path / "topics.tsv", tmp_path / "qrels.txt"
    topics.write_text("".join(f"{query.id}\t{query.text}\n" for query in QUERIES))
    qrels.write_text("".join(f"{q} 0 {d} {grade}\n" for q, grades in QRELS.items() for d, grade in grades.items()))
    dataset = load_trec(topics, qrels, beir / "corpus.jsonl")
    assert dataset.queries == tuple(QUERIES[:3])
    assert dataset.qrels == QRELS
    assert dataset.documents is not None
    assert list(dataset.documents()) == DOCUMENTS


def test_other_judgements_can_be_used(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("q1 0 d3 3\n")
    dataset = load_dataset(str(write_beir(tmp_path / "tiny")), qrels=other)
    assert dataset.queries == (QUERIES[0],)
    assert dataset.qrels == {"q1": {"d3": 3}}


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq1\td1\thigh\n")
    with pytest.raises(InvalidInputError, match=r"qrels.tsv, line 2: grade is 'high'"):
        read_qrels(path)
    path.write_text("q1 d1\n")
    with pytest.raises(InvalidInputError, match=r"line 1: expected 3 \(BEIR\) or 4 \(TREC\) fields, got 'q1 d1'"):
        read_qrels(path)
    (tmp_path / "topics.tsv").write_text("q1 no tab\n")
    path.write_text("q1 0 d1 1\n")
    with pytest.raises(InvalidInputError, match=r"topics.tsv, line 1: expected a query id, a tab"):
        load_trec(tmp_path / "topics.tsv", path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no dataset at"):
        load_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(NotFoundError, match=r"dev\.tsv"):
        load_dataset(str(write_beir(tmp_path / "tiny")), split="dev")
    with pytest.raises(NotFoundError, match="no/such/set"):
        load_dataset("irds:no/such/set")


def test_a_query_twice_and_other_encodings_are_refused(tmp_path: Path) -> None:
    topics, qrels = tmp_path / "topics.tsv", tmp_path / "qrels.txt"
    topics.write_text("q1\tone\nq1\ttwo\n")
    qrels.write_text("q1 0 d1 1\n")
    with pytest.raises(InvalidInputError, match="query id 'q1' occurs more than once"):
        load_trec(topics, qrels)
    qrels.write_bytes(b"q1 0 d\xff 1\n")
    with pytest.raises(InvalidInputError, match=r"qrels.txt, line 1: not UTF-8"):
        read_qrels(qrels)


def test_judgements_of_other_queries_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("q99 0 d3 3\n")
    with pytest.raises(InvalidInputError, match="none of its 4 queries is judged"):
        load_dataset(str(write_beir(tmp_path / "tiny")), qrels=other)

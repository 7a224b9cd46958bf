"""Logs of listwise rerankers, well-formed and as real ones are."""

import json
from pathlib import Path

import pytest

from rankers.errors import InvalidInputError, NotFoundError
from rankers.types import Query
from training.data.permutation_log import LoggedWindow, read_permutation_log


def write_log(path: Path, *answers: str) -> Path:
    records = [
        {"query_id": "1", "query": "flea", "doc_ids": ["a", "b", "c"], "response": answer, "is_permutation": True}
        for answer in answers
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_windows_are_read_and_incomplete_answers_known(tmp_path: Path) -> None:
    path = write_log(
        tmp_path / "log.jsonl", "[2] > [3] > [1]", "\n[3] > [3]", "2 > [3] > [2] > [1]", "I cannot help with that."
    )
    assert list(read_permutation_log(path)) == [
        LoggedWindow(Query("1", "flea"), ("a", "b", "c"), (1, 2, 0), complete=True),
        LoggedWindow(Query("1", "flea"), ("a", "b", "c"), (2, 0, 1), complete=False),
        LoggedWindow(Query("1", "flea"), ("a", "b", "c"), (1, 2, 0), complete=True),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 1: not a logged window"),
        ('{"query_id": "1"}', "KeyError"),
        ('{"query_id": "1", "query": "q", "doc_ids": ["a", "b"], "response": 3}', "must be strings"),
        ('{"query_id": "1", "query": "q", "doc_ids": ["a", "a"], "response": "[1]"}', "all different"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InvalidInputError, match=message):
        list(read_permutation_log(path))


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        list(read_permutation_log(tmp_path / "log.jsonl"))

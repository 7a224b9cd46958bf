"""Judged lists as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankers.errors import InvalidInputError, NotFoundError
from training.ultr.svmlight import read_svmlight


def write(folder: Path, text: str, name: str = "lists.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_labels_queries_and_features_are_read(tmp_path: Path) -> None:
    first = write(tmp_path, "2 qid:7 1:0.5 3:NULL # GX01\n0 qid:7 2:1e-3\n\n", "a")
    second = write(tmp_path, "1 qid:9 1:4\n", "b")
    found = read_svmlight(first, second)
    assert found.labels.tolist() == [2, 0, 1]
    assert (found.queries.tolist(), found.query_ids) == ([0, 0, 1], ("7", "9"))
    np.testing.assert_allclose(found.features, np.array([[0.5, 0, np.nan], [0, 1e-3, 0], [4, 0, 0]], dtype=np.float32))
    assert found.starts().tolist() == [0, 2, 3]


def test_sizes_stand_for_queries(tmp_path: Path) -> None:
    lines = write(tmp_path, "2 1:1\n0 1:2\n1 1:3\n")
    sizes = write(tmp_path, "1\n2\n", "sizes")
    assert read_svmlight(lines, group_sizes=sizes).queries.tolist() == [0, 1, 1]
    assert read_svmlight(lines, group_sizes=sizes, features=4).features.shape == (3, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2 qid:1 one:1\n", "line 1"),
        ("0 1:1\n", "0 of 1 lines have a query"),
        ("0 qid:1 1:1\n0 qid:2 1:1\n0 qid:1 1:1\n", "appears again"),
        ("0 qid:1 0:1\n", "features are numbered"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_svmlight(write(tmp_path, text))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_svmlight(tmp_path / "none")

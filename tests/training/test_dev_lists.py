"""What a model is measured with it was never trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankers.errors import InvalidInputError
from tests.training.lists import topic_lists, write_topic_lists
from training.data.training_list import write_lists
from training.dev_lists import read_split


def test_queries_of_dev_lists_are_not_trained_on_whatever_file_they_are_in(tmp_path: Path) -> None:
    files = [write_topic_lists(tmp_path / f"{name}.jsonl", found_by=name) for name in ("bm25", "dense")]
    write_lists(tmp_path / "dev.jsonl", topic_lists(found_by="other")[:3])
    kept, held_out = read_split(files, [tmp_path / "dev.jsonl"])
    assert [[item.query.id for item in lists] for lists in kept] == [[f"q{i}" for i in range(3, 10)]] * 2
    assert [item.query.id for item in held_out] == ["q0", "q1", "q2"]


def test_lists_that_are_all_held_out_are_refused(tmp_path: Path) -> None:
    path = write_topic_lists(tmp_path / "lists.jsonl")
    with pytest.raises(InvalidInputError, match="each of the 10 training lists has a query that is held out"):
        read_split([path], [path])

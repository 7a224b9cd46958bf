"""Lists on disk are the lists that were written."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.types import Document, Query
from tests.training.data.collection import make_list
from training.data.training_list import TrainingList, hash_lists, read_lists, write_lists

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def training_lists(draw: st.DrawFn) -> TrainingList:
    ids = draw(st.lists(texts, min_size=2, max_size=5, unique=True))
    documents = tuple(Document(i, draw(texts), draw(texts)) for i in ids)
    targets = tuple(draw(st.floats(allow_nan=False, allow_infinity=False)) for _ in ids)
    return TrainingList(Query(draw(texts), draw(texts)), documents, targets, draw(texts))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(training_lists(), max_size=3))
def test_what_is_written_is_read(tmp_path: Path, lists: list[TrainingList]) -> None:
    path = tmp_path / "new" / "lists.jsonl"
    assert write_lists(path, lists) == len(lists)
    found = list(read_lists(path))
    assert found == lists
    assert hash_lists(found) == hash_lists(lists)


def test_the_hash_knows_order_and_targets() -> None:
    first, second = make_list("a", "x", "y"), make_list("b", "x", "y")
    other = make_list("a", "x", "y", targets=[1.0, 0.5])
    hashes = {hash_lists(lists) for lists in ([first, second], [second, first], [first], [other])}
    assert len(hashes) == 4


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    def failing() -> Iterator[TrainingList]:
        yield make_list("new", "x", "y")
        raise KeyboardInterrupt

    path = tmp_path / "lists.jsonl"
    write_lists(path, [make_list("old", "x", "y")])
    with pytest.raises(KeyboardInterrupt):
        write_lists(path, failing())
    assert [item.query.id for item in read_lists(path)] == ["old"]


@pytest.mark.parametrize(
    ("documents", "targets", "message"),
    [
        (("x", "y"), (1.0,), "2 documents and 1 targets"),
        (("x",), (1.0,), "at least two documents"),
        (("x", "y"), (1.0, float("nan")), "not finite"),
        (("x", "x"), (1.0, 0.0), "occurs twice"),
    ],
)
def test_what_is_no_list_is_refused(documents: tuple[str, ...], targets: tuple[float, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TrainingList(Query("q", "?"), tuple(Document(i, i) for i in documents), targets, "test")


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    write_lists(path, [make_list("q", "x", "y")])
    good = path.read_text()
    for bad in ("nonsense", "{}", '{"query": 1}', good.replace("-1.0]", "-1.0, 2.0]").strip()):
        path.write_text(good + bad + "\n")
        with pytest.raises(InvalidInputError, match="line 2"):
            list(read_lists(path))
    for bad_bytes in (b'{"query": "\xff"}', good.replace('"text": "', '"text": 7, "was": "').encode()):
        path.write_bytes(good.encode() + bad_bytes)
        with pytest.raises(InvalidInputError, match="line 2"):
            list(read_lists(path))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="shortlist data lists"):
        list(read_lists(tmp_path / "none.jsonl"))
    with pytest.raises(InvalidInputError, match=r"cannot read training lists from .*: Is a directory"):
        list(read_lists(tmp_path))

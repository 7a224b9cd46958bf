"""Documents added, replaced and deleted in an index that is built: found at once by words and by vectors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import pytest

from index import directory as directories
from index.copies import copy_directory
from index.directory import DenseChoice, IndexDirectory
from index.encoders import Encoder
from index.manifest import Manifest
from index.spann.live import SpannIndex
from rankers.errors import ConfigError, InvalidInputError, OverloadedError, StorageError
from rankers.filters import parse_filter
from rankers.types import Document
from tests.index.change_killing import ChangeKiller
from tests.index.change_victim import WordEncoder, document
from tests.index.documents import ANIMALS

WHALE = Document("whale", "Whales swim in the sea.", metadata={"tags": ["wild"]})
DOG = Document("dog", "Huskies pull sledges through snow.", metadata={"tags": ["pet"]})
KINDS: tuple[DenseChoice, ...] = ("spann", "flat", "hnsw")
WORDS = cast(Encoder, WordEncoder())


@pytest.fixture
def directory(tmp_path: Path) -> IndexDirectory:
    opened = IndexDirectory(tmp_path / "index")
    opened.corpus.append(ANIMALS)
    return opened


def found_by_words(directory: IndexDirectory, *texts: str) -> list[str | None]:
    return [hits[0][0] if hits else None for hits in directory.open_bm25().search(texts, 1)]


def vector_ids(directory: IndexDirectory) -> set[str]:
    dense = directory.open_dense()
    return set(dense.ids()) if isinstance(dense, SpannIndex) else set(dense.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_found_by_words_and_by_vectors(
    directory: IndexDirectory, encoder: Encoder, kind: DenseChoice
) -> None:
    before = directory.build(encoder=encoder, encoder_name="minilm", dense_kind=kind)
    manifest = directory.change([DOG, WHALE, DOG], ["bird", "nobody"], encoder=encoder, encoder_name="minilm")
    assert manifest == directory.manifest()
    assert manifest is not None
    assert (manifest.version, manifest.documents) == (before.version + 1, 4)
    assert (manifest.parts, manifest.dense_kind) == (before.parts, kind)
    assert found_by_words(directory, "whale", "husky", "loyal", "singing", "fox") == ["whale", "dog", None, None, "fox"]
    dense = directory.open_dense()
    asked = encoder.encode_queries(["a big animal of the ocean", "a sled dog in winter", "birdsong at dawn"])
    hits = [row[0][0] for row in dense.search(asked, 1)]
    assert hits[:2] == ["whale", "dog"]
    assert vector_ids(directory) == set(directory.open_bm25().ids) == {"fox", "dog", "cat", "whale"}
    pets = parse_filter({"field": "tags", "eq": "pet"})
    for found in (
        dense.search(asked[:1], 9, condition=pets)[0],
        directory.open_bm25().search(["husky cat whale"], 9, condition=pets)[0],
    ):
        assert {name for name, _ in found} == {"dog", "cat"}
    with pytest.raises(InvalidInputError, match="has vectors of 'minilm'; give that encoder"):
        directory.change([WHALE])
    with pytest.raises(ConfigError, match="says encoder 'other'; build it again"):
        directory.change([WHALE], encoder=encoder, encoder_name="other")
    assert directory.manifest() == manifest


def test_an_index_of_words_alone_needs_no_encoder(directory: IndexDirectory) -> None:
    directory.build(encoder=None, encoder_name=None)
    directory.change([WHALE], ["cat"])
    assert found_by_words(directory, "whale", "cat") == ["whale", None]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_may_be_empty_before_a_change_and_after_it(tmp_path: Path, kind: DenseChoice) -> None:
    directory = IndexDirectory(tmp_path / "index")
    directory.build(encoder=WORDS, encoder_name="words", dense_kind=kind)
    directory.change([document("d1", 1), document("d2", 1)], encoder=WORDS, encoder_name="words")
    assert vector_ids(directory) == {"d1", "d2"}
    assert found_by_words(directory, "d2v1") == ["d2"]
    directory.change(deleted=["d1", "d2"])
    assert vector_ids(directory) == set(directory.open_bm25().ids) == set()
    directory.change([document("d1", 2)], encoder=WORDS, encoder_name="words")
    assert vector_ids(directory) == {"d1"}
    assert found_by_words(directory, "d1v1", "d1v2") == [None, "d1"]


def test_before_the_first_build_documents_are_kept_for_it(directory: IndexDirectory) -> None:
    assert directory.change([WHALE], ["cat"]) is None
    assert directory.build(encoder=None, encoder_name=None).documents == 4
    assert found_by_words(directory, "whale", "cat") == ["whale", None]


def test_a_document_that_cannot_be_stored_changes_nothing(directory: IndexDirectory) -> None:
    before = directory.build(encoder=None, encoder_name=None)
    with pytest.raises(InvalidInputError, match="document 'odd' cannot be stored"):
        directory.change([WHALE, Document("odd", "\ud800")], ["cat"])
    assert directory.manifest() == before
    assert len(directory.corpus) == 4


def test_changes_take_turns(directory: IndexDirectory) -> None:
    directory.build(encoder=None, encoder_name=None)
    with directory.exclusive(), pytest.raises(OverloadedError, match=r"another build or change of .*index is running"):
        IndexDirectory(directory.root).change([WHALE])


def test_what_is_open_stays_as_it_is(directory: IndexDirectory, encoder: Encoder) -> None:
    directory.build(encoder=encoder, encoder_name="minilm", dense_kind="spann")
    words, dense = directory.open_bm25(), directory.open_dense()
    for number in range(4):
        directory.change([Document(f"n{number}", "snow")], ["cat"], encoder=encoder, encoder_name="minilm")
    assert words.search(["cat"], 1)[0][0][0] == "cat"
    assert dense.search(encoder.encode_queries(["a sleeping kitten"]), 1)[0][0][0] == "cat"
    assert sorted(path.name for path in directory.root.glob("v*")) == ["v000004", "v000005"]


def test_segments_are_shared_with_the_version_before_and_keep_their_curve(tmp_path: Path) -> None:
    directory = IndexDirectory(tmp_path / "index")
    directory.corpus.append(document(f"d{i}", 0) for i in range(50))
    before = directory.build(encoder=WORDS, encoder_name="words", dense_kind="spann")
    (raw,) = directory.spann_folder().rglob("vectors.f32")
    raw.with_name("curve.json").write_text("{}")  # of no use to so few vectors, so it is not read
    directory.change([document("d99", 1)], encoder=WORDS, encoder_name="words")
    assert raw.is_relative_to(directory.folder(before))
    (shared,) = directory.spann_folder().rglob("vectors.f32")
    assert raw.samefile(shared)
    assert shared.with_name("curve.json").read_text() == "{}"


def test_many_changes_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = IndexDirectory(tmp_path / "index")
    directory.corpus.append(document(f"d{i}", 0) for i in range(50))
    directory.build(encoder=WORDS, encoder_name="words", dense_kind="spann")
    monkeypatch.setitem(SpannIndex.open.__func__.__kwdefaults__, "merge_rows", 8)  # type: ignore[attr-defined]
    for number in range(6):
        directory.change([document(f"d{i}", number) for i in range(3 * number, 3 * number + 5)], [f"d{49 - number}"],
                         encoder=WORDS, encoder_name="words")  # fmt: skip
        dense = directory.open_dense()
        assert isinstance(dense, SpannIndex)
        assert dense.delta_rows < 8
    assert vector_ids(directory) == set(directory.open_bm25().ids) == {f"d{i}" for i in range(44)}


def test_a_copy_is_made_while_documents_change(tmp_path: Path) -> None:
    """Changes come between the steps of copying, so often that the version copied goes away under it."""
    directory = IndexDirectory(tmp_path / "index")
    directory.corpus.append(document(f"d{i}", 0) for i in range(30))
    directory.build(encoder=WORDS, encoder_name="words", dense_kind="spann")
    left = [9]

    class Moving(IndexDirectory):
        def folder(self, manifest: Manifest) -> Path:
            for _ in range(3 if left[0] > 0 else 0):
                left[0] -= 1
                directory.change([document(f"n{left[0]}", 1)], encoder=WORDS, encoder_name="words")
            return super().folder(manifest)

    copy_directory(Moving(directory.root), tmp_path / "copy")
    copy = IndexDirectory(tmp_path / "copy")
    ids = {stored.id for stored in copy.corpus.stream()}
    assert ids == set(copy.open_bm25().ids) == vector_ids(copy)
    assert len(ids) == 39
    assert copy.manifest() == directory.manifest()


def test_a_change_that_fails_leaves_no_trace(directory: IndexDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    before = directory.build(encoder=None, encoder_name=None)

    def refuse(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(directories, "sync", refuse)
    with pytest.raises(StorageError, match=r"cannot be changed: .*No space left"):
        directory.change([WHALE], ["cat"])
    monkeypatch.undo()
    assert directory.manifest() == before
    assert found_by_words(directory, "whale", "cat") == [None, "cat"]
    assert len(directory.corpus) == 4
    directory.change([WHALE], ["cat"])
    assert found_by_words(directory, "whale", "cat") == ["whale", None]


def test_random_changes_equal_a_fresh_build(tmp_path: Path) -> None:
    choose = random.Random(3)
    changed, fresh = IndexDirectory(tmp_path / "changed"), IndexDirectory(tmp_path / "fresh")
    state = {f"d{i}": 0 for i in range(40)}
    changed.corpus.append(document(name, version) for name, version in state.items())
    changed.build(encoder=WORDS, encoder_name="words", dense_kind="spann")
    for number in range(1, 15):
        put = [f"d{i}" for i in choose.sample(range(60), 4)]
        gone = [f"d{i}" for i in choose.sample(range(60), 3)]
        changed.change([document(name, number) for name in put], gone, encoder=WORDS, encoder_name="words")
        state = {name: version for name, version in state.items() if name not in gone or name in put}
        state |= dict.fromkeys(put, number)
    fresh.corpus.append(document(name, version) for name, version in state.items())
    fresh.build(encoder=WORDS, encoder_name="words", dense_kind="spann")
    queries = [f"{name}v{version}" for name, version in state.items()]
    dense = [directory.open_dense().search(WORDS.encode_documents(queries), 5) for directory in (changed, fresh)]
    for one, other in zip(*dense, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        assert [score for _, score in one] == pytest.approx([score for _, score in other])
    assert changed.open_bm25().search(queries, 5) == fresh.open_bm25().search(queries, 5)


@pytest.mark.parametrize(("seed", "kills"), [(1, 6), (2, 6)])
def test_a_kill_leaves_the_old_state_or_the_new_one(tmp_path: Path, seed: int, kills: int) -> None:
    killer = ChangeKiller(tmp_path / "index", seed)
    for _ in range(kills):
        killer.kill_once()
    assert killer.killed_during.total() == kills

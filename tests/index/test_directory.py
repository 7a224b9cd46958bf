from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from index import directory as directories
from index.copies import copy_directory
from index.dense import DenseIndex
from index.directory import DenseChoice, IndexDirectory
from index.encoders import Encoder
from index.spann.live import SpannIndex
from index.versions import VECTORS_FILE
from rankers.errors import ConfigError, InvalidInputError, NotReadyError, OverloadedError
from rankers.filters import parse_filter
from rankers.types import Document
from tests.index.documents import ANIMALS

BUILD_AND_HANG = """
import sys, time
from pathlib import Path
from index.directory import IndexDirectory

root, model, phase = sys.argv[1:]
encoder = None
if model:
    from index.encoders import Encoder
    encoder = Encoder(model, device="cpu")

def hang(reached, done, total):
    if reached == phase:
        print("reached", flush=True)
        time.sleep(600)

IndexDirectory(Path(root)).build(encoder=encoder, encoder_name=model or None, on_progress=hang)
"""


def build_words(directory: IndexDirectory) -> int:
    return directory.build(encoder=None, encoder_name=None).version


def versions(directory: IndexDirectory) -> list[str]:
    return sorted(path.name for path in directory.root.glob("v*"))


@pytest.fixture
def directory(tmp_path: Path) -> IndexDirectory:
    opened = IndexDirectory(tmp_path / "index")
    opened.corpus.append(ANIMALS)
    return opened


def test_nothing_is_there_before_the_first_build(tmp_path: Path) -> None:
    directory = IndexDirectory(tmp_path / "index")
    for look in (directory.manifest, directory.open_bm25, directory.open_dense):
        with pytest.raises(NotReadyError, match="run: shortlist index build"):
            look()
    assert not directory.root.exists()


def test_a_build_can_be_searched(directory: IndexDirectory, encoder: Encoder) -> None:
    reports: list[tuple[str, int, int]] = []
    manifest = directory.build(
        encoder=encoder,
        encoder_name="minilm",
        dense_kind="hnsw",
        on_progress=lambda phase, done, total: reports.append((phase, done, total)),
    )
    assert directory.manifest() == manifest
    assert (manifest.version, manifest.documents, manifest.parts) == (1, 4, ("bm25", "dense"))
    assert (manifest.encoder, manifest.dense_kind) == ("minilm", "hnsw")
    assert datetime.fromisoformat(manifest.built_at).utcoffset() == timedelta(0)
    assert reports == [("indexing words", 4, 4), ("embedding", 4, 4)]
    assert directory.open_bm25().search(["fox"], 1)[0][0][0] == "fox"
    dense = directory.open_dense()
    assert isinstance(dense, DenseIndex)
    assert dense.kind == "hnsw"
    assert dense.search(encoder.encode_queries(["a sleeping kitten"]), 1)[0][0][0] == "cat"


@pytest.mark.parametrize("kind", ["spann", "auto"])
def test_many_vectors_are_kept_on_disk(
    directory: IndexDirectory, encoder: Encoder, kind: DenseChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "SPANN_DOCUMENTS", 4)
    assert directory.build(encoder=encoder, encoder_name="minilm", dense_kind=kind).dense_kind == "spann"
    dense = directory.open_dense()
    assert isinstance(dense, SpannIndex)
    query = encoder.encode_queries(["a sleeping kitten"])
    assert dense.search(query, 1)[0][0][0] == "cat"
    tagged = parse_filter({"not": {"field": "tags", "eq": "pet"}})
    assert [name for name, _ in dense.search(query, 9, condition=tagged)[0]][-1:] != ["cat"]
    assert not (directory.folder(directory.manifest()) / VECTORS_FILE).exists()
    directory.corpus.delete(["cat"])
    directory.build(encoder=encoder, encoder_name="minilm", dense_kind=kind)
    assert len(directory.open_dense()) == 3
    assert len(dense) == 4


def test_few_vectors_are_compared_all(directory: IndexDirectory, encoder: Encoder) -> None:
    assert directory.build(encoder=encoder, encoder_name="minilm").dense_kind == "flat"
    with pytest.raises(NotReadyError, match="indexed by 'flat'; run: shortlist index build --dense-kind spann"):
        directory.spann_folder()


@pytest.mark.parametrize("kind", ["flat", "spann"])
def test_a_copy_stands_on_its_own(
    directory: IndexDirectory, encoder: Encoder, tmp_path: Path, kind: DenseChoice
) -> None:
    with pytest.raises(NotReadyError, match="nothing is built"):
        copy_directory(directory, tmp_path / "early")
    manifest = directory.build(encoder=encoder, encoder_name="minilm", dense_kind=kind)
    copy_directory(directory, tmp_path / "copy")
    with pytest.raises(InvalidInputError, match="copy is not empty"):
        copy_directory(directory, tmp_path / "copy")
    directory.corpus.delete(["cat"])
    for _ in range(3):
        build_words(directory)
    copy = IndexDirectory(tmp_path / "copy")
    assert copy.manifest() == manifest
    assert len(copy.corpus) == 4
    assert copy.open_bm25().search(["fox"], 1)[0][0][0] == "fox"
    assert copy.open_dense().search(encoder.encode_queries(["a sleeping kitten"]), 1)[0][0][0] == "cat"
    assert copy.build(encoder=None, encoder_name=None).version == manifest.version + 1


def test_words_alone_need_no_encoder(directory: IndexDirectory, encoder: Encoder) -> None:
    manifest = directory.build(encoder=None, encoder_name=None)
    assert (manifest.parts, manifest.encoder, manifest.dense_kind) == (("bm25",), None, None)
    with pytest.raises(NotReadyError, match="built without dense"):
        directory.open_dense()
    with pytest.raises(InvalidInputError, match="go together"):
        directory.build(encoder=encoder, encoder_name=None)


def test_an_empty_corpus_can_be_built(tmp_path: Path, encoder: Encoder) -> None:
    directory = IndexDirectory(tmp_path / "index")
    assert directory.build(encoder=encoder, encoder_name="minilm").documents == 0
    assert directory.open_bm25().search(["fox"], 3) == [[]]
    assert directory.open_dense().search(encoder.encode_queries(["fox"]), 3) == [[]]


def test_documents_become_searchable_with_the_next_build(directory: IndexDirectory) -> None:
    build_words(directory)
    directory.corpus.append([Document("whale", "Whales swim.")])
    assert directory.open_bm25().search(["whale"], 1) == [[]]
    assert build_words(directory) == 2
    assert directory.open_bm25().search(["whale"], 1)[0][0][0] == "whale"


def test_documents_deleted_during_a_build_are_not_embedded(directory: IndexDirectory, encoder: Encoder) -> None:
    def delete(phase: str, done: int, total: int) -> None:
        if phase == "indexing words":
            directory.corpus.delete(["dog"])

    assert directory.build(encoder=encoder, encoder_name="minilm", on_progress=delete).documents == 4
    assert directory.open_bm25().ids == ("fox", "dog", "cat", "bird")
    dense = directory.open_dense()
    assert isinstance(dense, DenseIndex)
    assert dense.ids == ("fox", "cat", "bird")


def test_one_version_before_the_current_one_is_kept(directory: IndexDirectory) -> None:
    for _ in range(4):
        build_words(directory)
    assert versions(directory) == ["v000003", "v000004"]


@pytest.mark.parametrize(("phase", "embeds"), [("indexing words", False), ("embedding", True)])
def test_a_build_that_is_killed_leaves_the_old_version_serving(
    directory: IndexDirectory, minilm: str, phase: str, embeds: bool
) -> None:
    build_words(directory)
    before = directory.manifest()
    command = [sys.executable, "-c", BUILD_AND_HANG, str(directory.root), minilm if embeds else "", phase]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n"
        if embeds:
            assert (directory.root / "v000002" / "bm25").is_dir()
        # While it lives nobody else may build; reading and writing documents goes on.
        with pytest.raises(OverloadedError, match=r"another build or change of .*index is running"):
            build_words(directory)
        directory.corpus.append([Document("whale", "Whales swim.")])
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    assert directory.manifest() == before
    assert directory.open_bm25().search(["fox"], 1)[0][0][0] == "fox"
    (directory.root / "v000002" / "left-over").mkdir(parents=True, exist_ok=True)
    assert build_words(directory) == 2
    assert not (directory.root / "v000002" / "left-over").exists()
    assert directory.open_bm25().search(["whale"], 1)[0][0][0] == "whale"


def test_a_build_that_fails_leaves_the_old_version_serving(directory: IndexDirectory) -> None:
    build_words(directory)
    before = directory.manifest()

    def fail(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        directory.build(encoder=None, encoder_name=None, on_progress=fail)
    assert directory.manifest() == before
    assert build_words(directory) == 2


def test_an_open_index_outlives_its_version(directory: IndexDirectory) -> None:
    build_words(directory)
    first = directory.open_bm25()
    for _ in range(3):
        build_words(directory)
    assert versions(directory) == ["v000003", "v000004"]
    assert first.search(["fox"], 1)[0][0][0] == "fox"


def test_a_manifest_that_is_none_is_named(directory: IndexDirectory) -> None:
    build_words(directory)
    for content in ("{", "[]", "{}", json.dumps(asdict(directory.manifest()) | {"unknown": 1})):
        directory.corpus.change(state={"manifest": content})
        with pytest.raises(ConfigError, match=r"corpus\.sqlite has no manifest but '.*run: shortlist index build"):
            directory.manifest()
        directory.corpus.change(state={"manifest": '{"version": 1, "built_at": "", "documents": 4, "parts": ["bm25"]}'})


def test_the_manifest_of_an_older_version_is_found_in_its_file(directory: IndexDirectory) -> None:
    build_words(directory)
    manifest = directory.manifest()
    with closing(sqlite3.connect(directory.corpus.path)) as connection, connection:
        connection.execute("DELETE FROM state")
    assert directory.current() is None
    (directory.root / "MANIFEST.json").write_text(json.dumps(asdict(manifest)))
    assert directory.manifest() == manifest
    copy_directory(directory, directory.root.with_name("copy"))
    assert IndexDirectory(directory.root.with_name("copy")).manifest() == manifest
    assert build_words(directory) == manifest.version + 1
    assert not (directory.root / "MANIFEST.json").exists()

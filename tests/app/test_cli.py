"""The `shortlist` command, run as a user runs it: in a process of its own, in a folder of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from index.directory import IndexDirectory
from rankers.ltr.terms import load_statistics

CONFIG = """
models_dir: {models_dir}
default: bm25
pipelines:
  bm25: {{retriever: {{kind: bm25}}}}
  hybrid: {{retriever: {{kind: hybrid}}}}
  cross:
    retriever: {{kind: bm25}}
    stages: [{{kind: cross-encoder, model: minilm, depth: 10}}]
  both:
    stages: [{{kind: late-interaction, model: minilm, both_orders: true}}]
"""
DOCUMENTS = [
    {"id": "ltr", "title": "Learning to rank", "text": "orders candidates with a model trained on clicks"},
    {"id": "bm25", "text": "a lexical ranking function with term saturation"},
    {"id": "tea", "text": "a hot drink made of leaves", "metadata": {"year": 1610}},
]


def shortlist(folder: Path, *arguments: str, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "shortlist.yaml").write_text(CONFIG.format(models_dir=models_dir.resolve()))
    (folder / "documents.jsonl").write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    done = shortlist(folder, "index", "build", "documents.jsonl")
    assert "indexed 3 documents" in done.stderr
    return folder


def test_search_prints_json_for_programs(folder: Path) -> None:
    reply = json.loads(shortlist(folder, "search", "ranking function", "--json", "-k", "2").stdout)
    assert reply["results"][0]["id"] == "bm25"
    assert reply["score_kind"] == "lexical"
    assert [stage["name"] for stage in reply["stages"]] == ["retrieve"]


def test_search_keeps_to_a_filter(folder: Path) -> None:
    condition = '{"field": "year", "lt": 1700}'
    reply = json.loads(
        shortlist(folder, "search", "a model", "--pipeline", "hybrid", "--filter", condition, "--json").stdout
    )
    assert [result["id"] for result in reply["results"]] == ["tea"]


def test_search_prints_a_table_for_people(folder: Path) -> None:
    shown = shortlist(folder, "search", "trained on clicks", "--pipeline", "hybrid").stdout
    assert "Learning to rank" in shown
    assert "retrieve" in shown


def test_rerank_takes_texts_a_file_and_lines(folder: Path) -> None:
    texts = ["tea leaves", "ranking by clicks"]
    for arguments, stdin in [(texts, ""), (["--file", "-"], "\n".join(texts))]:
        done = shortlist(folder, "rerank", "drink", *arguments, "-p", "cross", "--json", stdin=stdin)
        assert sorted(result["text"] for result in json.loads(done.stdout)["results"]) == sorted(texts)
    done = shortlist(folder, "rerank", "drink", "--file", "documents.jsonl", "-p", "cross", "--json")
    assert sorted(result["id"] for result in json.loads(done.stdout)["results"]) == ["bm25", "ltr", "tea"]


def test_rerank_in_both_orders_says_how_far_they_agree(folder: Path) -> None:
    arguments = ("rerank", "drink", "tea leaves", "ranking by clicks", "-p", "both")
    (stage,) = json.loads(shortlist(folder, *arguments, "--json").stdout)["stages"]
    assert (stage["name"], stage["order_consistency"]) == ("late-interaction", 1.0)
    assert "order consistency 1.00" in shortlist(folder, *arguments).stdout


@pytest.mark.parametrize("kind", ["spann", "auto"])
def test_documents_that_are_added_or_deleted_are_so_at_once(tmp_path: Path, folder: Path, kind: str) -> None:
    index = str(tmp_path / "index")

    def found(query: str) -> list[str]:
        arguments = ("search", query, "--pipeline", "hybrid", "--json", "--index", index, "-k", "1")
        return [result["id"] for result in json.loads(shortlist(folder, *arguments).stdout)["results"]]

    (tmp_path / "more.jsonl").write_text('{"id": "coffee", "text": "beans, roasted and brewed"}\n')
    shortlist(folder, "index", "build", "documents.jsonl", "--dense-kind", kind, "--index", index)
    shown = shortlist(folder, "index", "delete", "tea", "nobody", "--index", index).stderr
    assert "deleted 1 of 2 documents, 2 left; version 2" in shown
    assert found("a hot drink") != ["tea"]
    shown = shortlist(folder, "index", "add", str(tmp_path / "more.jsonl"), "--index", index).stderr
    assert "3 in all; version 3" in shown
    assert found("a hot drink") == found("roasted beans") == ["coffee"]
    counted = shortlist(folder, "index", "statistics", str(tmp_path / "terms.json"), "--index", index)
    assert "counted" in counted.stderr
    statistics = load_statistics(tmp_path / "terms.json", stemmer="english")
    assert statistics["content"].documents == len(IndexDirectory(Path(index)).corpus)
    info = json.loads(shortlist(folder, "index", "info", "--index", index).stdout)
    assert (info["documents"], info["version"]) == (3, 3)
    if kind == "spann":
        assert info["vectors"] == {
            "memory_mb": info["vectors"]["memory_mb"],
            "delta_rows": 1,
            "segments": [{"vectors": 2, "heads": 0, "codec": "none", "curve": "none"}],
        }
    shown = shortlist(folder, "index", "delete", "nobody", "--index", index).stderr
    assert "deleted 0 of 1 documents, 3 left" in shown


def test_documents_added_before_the_first_build_wait_for_it(tmp_path: Path, folder: Path) -> None:
    index = str(tmp_path / "index")
    shown = shortlist(folder, "index", "add", "documents.jsonl", "--index", index).stderr
    assert "added 3 documents, 3 in all; next: shortlist index build" in shown
    shortlist(folder, "index", "delete", "tea", "--index", index)
    assert "indexed 2 documents" in shortlist(folder, "index", "build", "--no-dense", "--index", index).stderr


def test_an_index_is_checked_copied_and_put_back(tmp_path: Path, folder: Path) -> None:
    index, copy, again = (str(tmp_path / name) for name in ("index", "copy", "again"))
    shortlist(folder, "index", "build", "documents.jsonl", "--dense-kind", "spann", "--index", index)
    shortlist(folder, "index", "snapshot", copy, "--index", index)
    next(Path(index).rglob("segments/*/columns.bin")).unlink()
    raw = next(Path(index).rglob("vectors.f32"))
    size = raw.stat().st_size
    raw.unlink()  # which it shares with the copy
    raw.write_bytes(bytes(size))
    shown = shortlist(folder, "index", "check", "--repair", "--index", index, status=1).stdout
    assert "columns.bin: it is missing (mended)" in shown
    assert "vectors.f32" in shown
    assert "restored 3 documents" in shortlist(folder, "index", "restore", copy, "--index", again).stderr
    assert len(IndexDirectory(Path(again)).open_dense()) == 3


def test_models_list_says_what_can_be_pulled(tmp_path: Path) -> None:
    (tmp_path / "shortlist.yaml").write_text("default: a\npipelines: {a: {retriever: {kind: bm25}}}\n")
    assert "smollm2-135m" in shortlist(tmp_path, "models", "list").stderr


def test_init_writes_a_configuration_and_keeps_one_that_is_there(tmp_path: Path) -> None:
    shortlist(tmp_path, "init")
    assert "smollm2-135m" in (tmp_path / "shortlist.yaml").read_text()
    assert "delete it first" in shortlist(tmp_path, "init", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "x", "--pipeline", "nope"), "no pipeline or model 'nope'"),
        (("search", ""), "query"),
        (("search", "x", "--filter", "{"), "--filter is not JSON"),
        (("search", "x", "--filter", '{"year": 3}'), "a filter has a field and comparisons"),
        (("search", "x", "--config", "missing.yaml"), "shortlist init"),
        (("search", "x", "--index", "nowhere"), "shortlist index build"),
        (("rerank", "x", "-p", "cross"), "no documents"),
        (("rerank", "x", "a", "b", "-p", "bm25"), "no stages"),
        (("index", "build", "absent.jsonl"), "absent.jsonl"),
        (("models", "pull", "gpt-17"), "gpt-17"),
        (("models", "compare", "gpt-17"), "there is no model 'gpt-17'"),
    ],
)
def test_bad_input_gets_one_clear_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = shortlist(folder, *arguments, status=2)
    assert message in done.stderr
    assert done.stdout == ""


def test_tuning_keeps_a_curve_and_a_plot(tmp_path: Path, folder: Path) -> None:
    index = tmp_path / "index"
    shortlist(folder, "index", "build", "documents.jsonl", "--dense-kind", "spann", "--index", str(index))
    (tmp_path / "queries.txt").write_text("hot drink\n\nclicks\n")
    arguments = ("index", "tune", "--recall", "0.9", "--queries", str(tmp_path / "queries.txt"), "--index", str(index))
    assert "3 vectors: recall 1.000" in shortlist(folder, *arguments, "-k", "2").stderr
    assert len(list(index.rglob("curve.json"))) == len(list(index.rglob("curve.png"))) == 1
    assert "and 10 vectors, got 2 and 3" in shortlist(folder, *arguments, status=2).stderr

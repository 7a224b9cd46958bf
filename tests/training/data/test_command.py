"""`shortlist data` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rankers.errors import InvalidInputError
from tests.rankers.llm.fake_server import FakeServer, Json
from tests.training.data.collection import write_collection, write_config
from training.data.command import data
from training.data.training_list import read_lists
from training.evaluation.datasets import load_dataset


@pytest.fixture
def folder(tmp_path: Path, models_dir: Path) -> Path:
    write_collection(tmp_path / "small")
    write_config(tmp_path, models_dir=models_dir)
    return tmp_path


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    line = [sys.executable, "-m", "app.cli", "data", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join((done.stdout + done.stderr).split())


def test_lists_are_refused_or_cleaned_where_they_leak(folder: Path) -> None:
    recipe = {"sources": {"judged": {"kind": "qrels", "dataset": "small", "depth": 4}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_collection(folder / "exam", qrels={"test": {"cat": {"ship-1": 1}, "ship": {"fox-1": 0}}})
    shown = run(folder, "lists", "recipe.yaml", "--out", "all.jsonl")
    assert "nothing was checked for leaks" in shown
    assert "qrels:judged" in shown
    assert len(list(read_lists(folder / "all.jsonl"))) == 3

    arguments = ("lists", "recipe.yaml", "--out", "clean.jsonl", "--against", "exam")
    shown = run(folder, *arguments, status=2)
    assert "query 'cat'" in shown
    assert "document 'fox-1'" in shown
    assert not (folder / "clean.jsonl").exists()

    shown = run(folder, *arguments, "--drop-leaks")
    kept = list(read_lists(folder / "clean.jsonl"))
    assert {item.query.id for item in kept} == {"fox", "dog"}
    assert "fox-1" not in {document.id for item in kept for document in item.documents}
    shown = run(folder, "lists", "recipe.yaml", "--out", "q.jsonl", "--against-queries", "exam", "--drop-leaks")
    assert "1 queries and 0 documents" in shown


def run_here(*arguments: str) -> str:
    """Run in this process, which has imported what takes seconds to import."""
    result = CliRunner().invoke(data, arguments)
    if result.exception is not None:
        raise result.exception
    return " ".join(result.output.split())


def ask_for_topic(request: Json) -> str:
    words = request["messages"][-1]["content"].rpartition("about the ")[2].split()
    return f"what about the {words[0]} and {words[2]} things"


def test_a_hosted_model_writes_a_collection_to_train_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    corpus = folder / "small" / "corpus.jsonl"
    with FakeServer(answers=ask_for_topic) as server:
        arguments = ["synthesize", "small", "--out", "synthetic", "--queries", "8", "--clusters", "3"]
        arguments += ["--server", server.url, "--model", "hosted", "--top-k", "2"]
        with pytest.raises(InvalidInputError, match="none of the 30 documents has 20 words"):
            run_here(*arguments)
        corpus.write_text(corpus.read_text().replace("asks for", f"asks for {'or so they say in the old books ' * 2}"))
        run_here(*arguments, "--keep-if", "bm25")
        assert len(server.received) == 8
        assert "8 queries" in run_here(*arguments, "--keep-if", "none")
        assert len(server.received) == 8
        corpus.write_text(corpus.read_text().replace("text number 1 about the fox", "text number 7 about the fox"))
        for other in ((), ("--seed", "1"), ("--max-new-tokens", "41")):
            with pytest.raises(InvalidInputError, match="other settings"):
                run_here(*arguments, *other)
        assert len(server.received) == 8
    dataset = load_dataset("synthetic", split="train")
    assert len(dataset.queries) == 8
    recipe = {"sources": {"synthetic": {"kind": "qrels", "dataset": "synthetic", "depth": 5}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run_here("lists", "recipe.yaml", "--out", "lists.jsonl")
    for item in read_lists(folder / "lists.jsonl"):
        best = max(range(len(item.documents)), key=lambda i: item.targets[i])
        assert item.query.id == f"synthetic-{item.documents[best].id}"


def test_a_collection_that_is_there_is_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in (folder / "small").rglob("*") if path.is_file()}
    with pytest.raises(InvalidInputError, match="has the documents of small; choose another folder"):
        run_here("synthesize", "small", "--out", "small", "--server", "http://127.0.0.1:1/v1")
    with pytest.raises(InvalidInputError, match="was not written here"):
        run_here("synthesize", "python-docs", "--out", "small", "--server", "http://127.0.0.1:1/v1")
    assert {path: path.read_bytes() for path in (folder / "small").rglob("*") if path.is_file()} == before


def test_only_settings_that_queries_depend_on_are_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    corpus = folder / "small" / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("asks for", f"asks for {'or so they say in the old books ' * 2}"))
    with FakeServer(answers=ask_for_topic) as server:
        arguments = ["synthesize", "small", "--out", "synthetic", "--server", server.url, "--model", "hosted"]
        arguments += ["--keep-if", "none", "--max-new-tokens", "60"]
        run_here(*arguments, "--queries", "2")
        assert {body["max_completion_tokens"] for body in server.bodies} == {60}
        run_here(*arguments, "--queries", "2", "--temperature", "2", "--top-k", "9")
        assert len(server.received) == 2
        assert "30 queries" in run_here(*arguments, "--queries", "100")
        assert len(server.received) == 30


def test_a_teacher_is_not_paid_where_queries_leak(
    folder: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    recipe = {"sources": {"hosted": {"kind": "teacher", "teacher": "hosted", "dataset": "small", "depth": 3}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_collection(folder / "exam", qrels={"test": {"cat": {"ship-1": 1}}})

    def answer(request: Json) -> str:
        asked_about_dog = "does a dog come" in request["messages"][-1]["content"]
        return "[/no] idea" if asked_about_dog else "[2] > [1] > [3]"

    arguments = ["lists", "recipe.yaml", "--against", "exam", "--out"]
    with FakeServer(answers=answer) as server:
        write_config(folder, models_dir=models_dir, url=server.url)
        with pytest.raises(InvalidInputError, match="1 queries and 0 documents"):
            run_here(*arguments, "lists.jsonl")
        with pytest.raises(InvalidInputError, match="small is a folder"):
            run_here(*arguments, "small", "--drop-leaks")
        assert not server.received
        shown = run_here(*arguments, "lists.jsonl", "--drop-leaks")
    assert "left out: 1 queries of hosted for which its teacher gave no order; query 'dog'" in shown
    assert [item.query.id for item in read_lists(folder / "lists.jsonl")] == ["fox"]


def test_a_local_model_writes_too(folder: Path, monkeypatch: pytest.MonkeyPatch, smollm2: str) -> None:
    monkeypatch.chdir(folder)
    corpus = folder / "small" / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("asks for", f"asks for {'or so they say in the old books ' * 2}"))
    shown = run_here("synthesize", "small", "--out", "local", "--queries", "1", "--model", smollm2, "--keep-if", "none")
    assert "of 1 documents" in shown
    assert (folder / "local" / "written.jsonl").read_text().count("document_id") == 1
    assert json.loads((folder / "local" / "settings.json").read_text())["model"].startswith("smollm2-135m@")

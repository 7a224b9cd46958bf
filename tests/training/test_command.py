"""`shortlist evaluate` as a user runs it, over the real BM25."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rankers.calibration import CALIBRATION_FILE, Calibration
from rankers.registry import ModelRegistry
from rankers.types import ScoreKind
from tests.rankers.ltr.linear import add_linear
from tests.training.collection import write_beir

CONFIG = """
default: bm25
pipelines:
  bm25: {retriever: {kind: bm25}}
  again: {retriever: {kind: bm25}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    write_beir(folder / "tiny")
    (folder / "shortlist.yaml").write_text(CONFIG)
    (folder / "run.trec").write_text("q1 Q0 d2 1 2.0 x\nq1 Q0 d1 2 1.0 x\nq2 Q0 d3 1 1.0 x\n")
    return folder


def run(folder: Path, *arguments: str, command: str = "evaluate", status: int = 0) -> str:
    line = [sys.executable, "-m", "app.cli", command, *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_beir_directory_is_indexed_once_and_evaluated(folder: Path) -> None:
    shown = run(folder, "tiny", "-p", "bm25", "-p", "again")
    assert "indexing words" in shown
    report = json.loads((folder / "var/evaluations/tiny/report.json").read_text())
    assert report["pipelines"]["bm25"]["measures"]["RR@10"]["mean"] == 1.0
    assert report["pipelines"]["again"]["against_baseline"]["AP"]["ties"] == 3
    assert "indexing words" not in run(folder, "tiny", "-p", "bm25", "--out", "second")


def test_a_changed_collection_is_indexed_again(folder: Path) -> None:
    run(folder, "tiny", "--out", "before")
    again = ("tiny", "--out", "before")
    corpus = folder / "tiny" / "corpus.jsonl"
    before = corpus.read_text()
    corpus.write_text(before.replace("ships sail the sea", "nothing of the kind"))
    try:
        assert "indexing words" in run(folder, "tiny", "--out", "changed")
        assert "documents_sha256 was" in run(folder, *again, status=2)
    finally:
        corpus.write_text(before)
    report = json.loads((folder / "changed" / "report.json").read_text())
    assert report["pipelines"]["bm25"]["per_query"]["RR@10"]["q2"] == 0.0


def test_a_stored_run_can_be_the_first_stage(folder: Path) -> None:
    run(folder, "tiny", "--first-stage", "run.trec", "--out", "from-run", "-m", "RR@10")
    report = json.loads((folder / "from-run" / "report.json").read_text())
    assert report["pipelines"]["run"]["per_query"]["RR@10"] == {"q1": 1.0, "q2": 1.0, "q3": 0.0}


def test_a_stored_run_that_has_changed_is_not_taken_for_the_old_one(folder: Path) -> None:
    stored = folder / "changing.trec"
    stored.write_text("q1 Q0 d1 1 1.0 x\n")
    arguments = ("tiny", "--first-stage", stored.name, "--out", "changing")
    run(folder, *arguments)
    stored.write_text("q1 Q0 d3 1 1.0 x\n")
    assert "belongs to another evaluation" in " ".join(run(folder, *arguments, status=2).split())


def test_an_index_that_is_there_can_be_searched(folder: Path) -> None:
    run(folder, "tiny", "--out", "built")
    shown = run(folder, "tiny", "--index", "var/indexes/tiny", "--out", "given")
    assert "indexing words" not in shown
    assert (folder / "given" / "bm25.trec").read_bytes() == (folder / "built" / "bm25.trec").read_bytes()


def test_trec_files_and_a_limit(folder: Path) -> None:
    (folder / "topics.tsv").write_text("q1\tcat mat\nq2\tsea ships\n")
    arguments = ("--topics", "topics.tsv", "--qrels", "tiny/qrels/test.tsv", "--documents", "tiny/corpus.jsonl")
    run(folder, *arguments, "--limit", "1", "--out", "trec")
    assert json.loads((folder / "trec" / "report.json").read_text())["queries"] == 1


def test_scores_are_calibrated_on_judged_documents(folder: Path) -> None:
    shown = run(folder, "tiny", "--split", "test", "--out", "var/models/calibration.json", command="calibrate")
    assert "4 relevant" in shown
    fitted = Calibration.load(folder / "var" / "models" / "calibration.json")
    assert fitted.score_kind is ScoreKind.LEXICAL
    assert fitted.data == "tiny/test"
    assert fitted.judged > fitted.relevant == 4
    assert fitted.model == ""
    refused = run(folder, "tiny", "--split", "test", command="calibrate", status=2)
    assert "say where to write with --out" in " ".join(refused.split())


def test_a_calibration_lies_with_the_version_it_was_fitted_for(folder: Path) -> None:
    add_linear(ModelRegistry(folder / "var" / "models"), "v1", {"bm25": 1.0})
    stage = "{kind: ltr, model: ranker, calibration: true}"
    (folder / "learned.yaml").write_text(
        f"default: learned\npipelines: {{learned: {{retriever: {{kind: bm25}}, stages: [{stage}]}}}}\n"
    )
    arguments = ("tiny", "--split", "test", "--config", "learned.yaml")
    for _ in range(2):  # what it has is no part of what the next one is fitted on
        shown = run(folder, *arguments, command="calibrate")
        assert "calibration of ranker@v1:" in shown
        fitted = Calibration.load(folder / "var" / "models" / "ranker" / "v1" / CALIBRATION_FILE)
        assert (fitted.score_kind, fitted.model) == (ScoreKind.PREFERENCE, "ranker@v1")
    run(folder, "tiny", "--config", "learned.yaml", "--out", "calibrated")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a dataset, or --topics"),
        (("nowhere",), "no dataset at 'nowhere'"),
        (("tiny", "-p", "nope"), "no pipeline or model 'nope'"),
        (("tiny", "-p", "bm25", "-p", "bm25"), "not all different"),
        (("tiny", "-m", "nDCG@ten", "--out", "bad-measure"), "nDCG@ten"),
        (("--topics", "topics.tsv"), "--topics needs --qrels"),
    ],
)
def test_bad_input_gets_one_clear_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(run(folder, *arguments, status=2).split())

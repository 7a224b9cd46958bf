"""`shortlist robustness` as a user runs it, over the real BM25 and a stored run."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rankers.errors import InvalidInputError, NotFoundError
from tests.training.collection import DOCUMENTS, write_beir
from training.robustness.command import robustness

CONFIG = "default: bm25\npipelines:\n  bm25: {retriever: {kind: bm25}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_beir(tmp_path / "tiny")
    (tmp_path / "shortlist.yaml").write_text(CONFIG)
    (tmp_path / "rewrites.jsonl").write_text(
        "".join(json.dumps({"id": d.id, "text": d.text}) + "\n" for d in DOCUMENTS)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    cli = typer.Typer()
    cli.command()(robustness)
    result = CliRunner().invoke(cli, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table_is_printed_and_written(folder: Path) -> None:
    shown = run("tiny", "--limit", "2", "--repeats", "2", "-m", "RR@10", "--rewrites", "rewrites.jsonl")
    assert "report: var/robustness/tiny/bm25/robustness.md" in shown
    assert "has no stages" in shown
    content = json.loads((folder / "var/robustness/tiny/bm25/robustness.json").read_text())
    assert content["rows"][0]["per_query"] == {"q1": 1.0, "q2": 1.0}
    assert content["rows"][1]["repeats"] == 2
    assert content["configuration"]["name"] == "bm25"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nowhere",), NotFoundError, "no dataset at 'nowhere'"),
        (("tiny", "-m", "nDCG@ten"), InvalidInputError, "nDCG@ten"),
        (("tiny", "-p", "nope"), NotFoundError, "nope"),
        (("tiny", "--substitute", "2"), InvalidInputError, "substitution_rate is 2.0"),
        (("tiny", "--family", "words"), InvalidInputError, "families are words, must be some of depth, order"),
        (("tiny", "--rewrites", "nowhere"), NotFoundError, "no documents at nowhere"),
    ],
)
def test_bad_input_gets_a_clear_error(
    folder: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(*arguments)

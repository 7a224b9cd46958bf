import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankers.errors import InvalidInputError
from rankers.pipeline import Pipeline
from tests.training.collection import WordOverlap, write_beir
from training.evaluation.datasets import Dataset, load_dataset
from training.evaluation.evaluation import evaluate
from training.evaluation.measures import measure_run
from training.evaluation.report import build_report, markdown, write_report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_dataset(str(write_beir(tmp_path / "tiny")))


def test_a_pipeline_is_run_and_measured(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluation = evaluate(
        Pipeline("words", WordOverlap()),
        dataset,
        tmp_path / "out",
        depth=3,
        batch_size=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 3), (2, 3), (3, 3)]
    assert {len(places) for places in evaluation.scores.values()} == {3}
    assert evaluation.run_path.read_text().count("\n") == 9
    assert list(evaluation.stage_seconds) == ["retrieve"]
    assert evaluation.seconds > 0
    assert evaluation.peak_memory_mib > 10
    assert measure_run(evaluation.scores, dataset.qrels, ["RR@10"])["RR@10"] == {"q1": 1.0, "q2": 1.0, "q3": 1.0}


def test_an_interrupted_evaluation_goes_on_where_it_stopped(dataset: Dataset, tmp_path: Path) -> None:
    whole = evaluate(Pipeline("words", WordOverlap()), dataset, tmp_path / "whole", batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Pipeline("words", WordOverlap(fail_at="q3")), dataset, tmp_path / "out", batch_size=1)
    assert not (tmp_path / "out" / "words.trec").exists()
    journal = tmp_path / "out" / "words.journal.jsonl"
    journal.write_text(journal.read_text() + '{"query_id": "q3", "ru')  # cut off while writing
    retriever = WordOverlap()
    resumed = evaluate(Pipeline("words", retriever), dataset, tmp_path / "out", batch_size=1)
    assert retriever.asked == ["q3"]
    assert resumed.run_path.read_bytes() == whole.run_path.read_bytes()
    again = WordOverlap()
    finished = evaluate(Pipeline("words", again), dataset, tmp_path / "out", batch_size=1)
    assert again.asked == []
    assert finished.peak_memory_mib == resumed.peak_memory_mib  # what running took, not reading the journal
    evaluate(Pipeline("words", again), dataset, tmp_path / "out", fresh=True)
    assert again.asked == ["q1", "q2", "q3"]


def test_a_killed_process_loses_at_most_a_batch(dataset: Dataset, tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from rankers.pipeline import Pipeline
from tests.training.collection import WordOverlap
from training.evaluation.datasets import load_dataset
from training.evaluation.evaluation import evaluate

class Slow(WordOverlap):
    def retrieve(self, queries, k):
        time.sleep(60 if queries[0].id == "q3" else 0)
        return super().retrieve(queries, k)

dataset = load_dataset({str(tmp_path / "tiny")!r})
evaluate(Pipeline("words", Slow()), dataset, Path({str(tmp_path / "out")!r}), batch_size=1)
"""
    journal = tmp_path / "out" / "words.journal.jsonl"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        for _ in range(300):
            if journal.is_file() and journal.read_text().count("\n") == 3:
                break
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    retriever = WordOverlap()
    resumed = evaluate(Pipeline("words", retriever), dataset, tmp_path / "out", batch_size=1)
    whole = evaluate(Pipeline("words", WordOverlap()), dataset, tmp_path / "whole")
    assert retriever.asked == ["q3"]
    assert resumed.run_path.read_bytes() == whole.run_path.read_bytes()


def test_the_beginning_of_another_evaluation_is_not_gone_on_with(dataset: Dataset, tmp_path: Path) -> None:
    evaluate(Pipeline("words", WordOverlap()), dataset, tmp_path, depth=3)
    with pytest.raises(InvalidInputError, match="depth was 3, is 2; choose another --out, or --fresh"):
        evaluate(Pipeline("words", WordOverlap()), dataset, tmp_path, depth=2)
    with pytest.raises(InvalidInputError, match="batch_size was 32, is 2"):
        evaluate(Pipeline("words", WordOverlap()), dataset, tmp_path, depth=3, batch_size=2)
    with pytest.raises(InvalidInputError, match=r"configuration\.model was None, is other;"):
        evaluate(Pipeline("words", WordOverlap()), dataset, tmp_path, depth=3, configuration={"model": "other"})


def test_a_batch_cut_off_is_run_again_whole(dataset: Dataset, tmp_path: Path) -> None:
    evaluate(Pipeline("words", WordOverlap()), dataset, tmp_path, batch_size=2)
    journal = tmp_path / "words.journal.jsonl"
    first, whole_batch = journal.read_text().splitlines()[:2]
    journal.write_text(first + "\n" + whole_batch[:-20])
    again = WordOverlap()
    evaluate(Pipeline("words", again), dataset, tmp_path, batch_size=2)
    assert again.asked == ["q1", "q2", "q3"]


def test_memory_is_that_of_the_pipeline_alone(dataset: Dataset, tmp_path: Path) -> None:
    before = evaluate(Pipeline("before", WordOverlap()), dataset, tmp_path)
    assert len(b"x" * (400 * 2**20)) > 0  # resident for a moment, as the vectors of an index being built
    after = evaluate(Pipeline("after", WordOverlap()), dataset, tmp_path)
    assert after.peak_memory_mib < before.peak_memory_mib + 200


def test_the_report_says_everything_three_times(dataset: Dataset, tmp_path: Path) -> None:
    evaluations = [evaluate(Pipeline(name, WordOverlap()), dataset, tmp_path) for name in ("words", "same-words")]
    report = build_report(dataset, evaluations, measures=["nDCG@10", "AP"], configuration={"depth": 100})
    html = write_report(report, tmp_path).read_text()
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["baseline"] == "words"
    assert content["gain"] == {"nDCG@10": "linear"}
    assert content["pipelines"]["words"]["per_query"]["AP"]["q1"] == 1.0
    assert content["pipelines"]["same-words"]["against_baseline"]["AP"]["p_value"] == 1.0
    assert set(content["environment"]) >= {"torch", "ir-measures"}
    for text in (html, markdown(report)):
        assert "nDCG@10 (linear gain)" in text
        assert "same-words" in text
    assert html.count("data:image/png;base64,") == 4
    assert "http" not in html

"""A candidate and the live model on a judged collection."""

from pathlib import Path

from index.pipelines import load_pipelines
from rankers.registry import ModelRegistry
from tests.rankers.ltr.linear import add_linear
from tests.training.collection import write_beir
from training.loop.judged import measure_judged
from training.loop.settings import JudgedGate

CONFIG = """
default: learned
pipelines:
  learned: {retriever: {kind: bm25}, stages: [{kind: ltr, model: ranker, calibration: true}]}
"""


def test_neither_version_needs_a_calibration_to_be_compared(tmp_path: Path) -> None:
    write_beir(tmp_path / "tiny")
    (tmp_path / "shortlist.yaml").write_text(CONFIG)
    pipelines = load_pipelines(tmp_path / "shortlist.yaml")
    registry = ModelRegistry(pipelines.models_dir)
    add_linear(registry, "v1", {"bm25": 1.0})
    candidate = add_linear(registry, "v2", {"bm25": -1.0}, promote=False)
    gate = JudgedGate(data=tmp_path / "tiny", pipeline="learned", split="test")
    ours, live, bound = measure_judged(gate, pipelines, "ranker", candidate, on_progress=lambda *_: None)
    assert ours < live
    assert bound <= ours - live

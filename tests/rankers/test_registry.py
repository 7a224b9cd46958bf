"""The registry: versions are immutable, appear whole or not at all, and one of them is live."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankers.errors import InvalidInputError, NotFoundError
from rankers.registry import ModelCard, ModelRegistry


def card(version: str, *, name: str = "ranker") -> ModelCard:
    return ModelCard(name, version, kind="causal-lm", source="here", licence="Apache-2.0", data_hash="sha256:0")


def write_weights(folder: Path) -> None:
    (folder / "weights").write_text("1 2 3")


def test_a_model_added_is_live_and_has_its_card(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    path = registry.add(card("v1"), write_weights)
    assert (path / "weights").read_text() == "1 2 3"
    assert registry.live("ranker") == path
    assert registry.cards() == [(card("v1"), True)]


def test_an_empty_registry_has_nothing(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "nowhere")
    assert registry.live("ranker") is None
    assert registry.cards() == []


def test_an_older_version_can_be_made_live_again(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    first = registry.add(card("v1"), write_weights)
    second = registry.add(card("v2"), write_weights)
    assert registry.live("ranker") == second
    registry.promote("ranker", "v1")
    assert registry.live("ranker") == first
    assert [(c.version, live) for c, live in registry.cards()] == [("v1", True), ("v2", False)]


def test_a_version_is_never_changed(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    registry.add(card("v1"), write_weights)
    with pytest.raises(InvalidInputError, match="never changed"):
        registry.add(card("v1"), write_weights)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    first = registry.add(card("v1"), write_weights)

    def fail(folder: Path) -> None:
        write_weights(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.add(card("v2"), fail)
    assert registry.live("ranker") == first
    assert [c.version for c, _ in registry.cards()] == ["v1"]
    assert {path.name for path in (tmp_path / "ranker").iterdir()} == {"v1", "LIVE"}


@pytest.mark.parametrize("name", ["", "..", "../up", "Upper", "a/b", ".hidden"])
def test_names_that_cannot_be_folders_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="must match"):
        ModelRegistry(tmp_path).add(card("v1", name=name), write_weights)
    with pytest.raises(InvalidInputError, match="must match"):
        ModelRegistry(tmp_path).add(card(name), write_weights)
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_does_not_exist_cannot_be_live(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no version 'v9'"):
        ModelRegistry(tmp_path).promote("ranker", "v9")

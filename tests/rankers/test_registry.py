"""The registry: versions are immutable, appear whole or not at all, one of them is live, and moves are on record."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankers.errors import InvalidInputError, NotFoundError
from rankers.registry import ModelCard, ModelRegistry


def card(version: str, *, name: str = "ranker", kind: str = "ltr") -> ModelCard:
    return ModelCard(name, version, kind=kind, source="here", licence="Apache-2.0", data_hash="sha256:0")


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
    assert {path.name for path in (tmp_path / "ranker").iterdir()} == {"v1", "LIVE", "HISTORY.jsonl", ".lock"}


def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    registry.add(card("v1"), write_weights)
    for name, age in (("old", 25 * 3600), ("new", 60)):
        left = tmp_path / "ranker" / f".incoming-{name}"
        left.mkdir()
        write_weights(left)
        then = time.time() - age
        os.utime(left, (then, then))
    registry.add(card("v2"), write_weights)
    assert {path.name for path in (tmp_path / "ranker").glob(".incoming-*")} == {".incoming-new"}


def test_a_note_that_was_cut_off_costs_only_itself(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    for version in ("v1", "v2", "v3"):
        registry.add(card(version), write_weights)
    history = tmp_path / "ranker" / "HISTORY.jsonl"
    history.write_text(history.read_text()[:-20])  # within the note of v3
    assert [move.version for move in registry.history("ranker")] == ["v1", "v2"]
    assert registry.rollback("ranker") == "v2"
    assert [(move.action, move.version) for move in registry.history("ranker")][-1] == ("rollback", "v2")


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


def registry_of(folder: Path, *versions: str) -> ModelRegistry:
    """A registry whose model has these versions, none of them live."""
    registry = ModelRegistry(folder)
    for version in versions:
        registry.add(card(version), write_weights, promote=False)
    return registry


def test_a_version_may_be_added_without_going_live(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, "v1")
    assert registry.live("ranker") is None
    assert registry.cards() == [(card("v1"), False)]
    with pytest.raises(NotFoundError, match=r"no live version.*it has v1"):
        registry.card("ranker")
    assert registry.card("ranker", "v1") == card("v1")


def test_every_move_is_on_record(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, "v1", "v2")
    registry.promote("ranker", "v1", who="ada", why="the first")
    registry.promote("ranker", "v1", who="ada", why="it is live already")
    registry.promote("ranker", "v2", who="bob", why="nDCG@10 +0.02")
    registry.rollback("ranker", who="ada", why="fewer clicks")
    registry.rollback("ranker", who="ada", why="still fewer")
    registry.promote("ranker", "v2", who="bob")
    moves = [(move.action, move.previous, move.version, move.who, move.why) for move in registry.history("ranker")]
    assert moves == [
        ("promote", None, "v1", "ada", "the first"),
        ("promote", "v1", "v2", "bob", "nDCG@10 +0.02"),
        ("rollback", "v2", "v1", "ada", "fewer clicks"),
        ("rollback", "v1", None, "ada", "still fewer"),
        ("promote", None, "v2", "bob", ""),
    ]
    assert all(move.at.endswith("+00:00") for move in registry.history("ranker"))
    assert ModelRegistry(tmp_path / "nowhere").history("ranker") == []


def test_rolling_back_again_goes_further_back(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, "v1", "v2", "v3")
    for version in ("v1", "v2", "v3"):
        registry.promote("ranker", version)
    assert registry.rollback("ranker") == "v2"
    assert registry.rollback("ranker") == "v1"
    registry.promote("ranker", "v3")
    assert registry.rollback("ranker") == "v1"


def test_before_the_first_promotion_nothing_was_live(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, "v1", "v2")
    registry.promote("ranker", "v1")
    assert registry.rollback("ranker") is None
    assert registry.live_version("ranker") is None
    assert registry.live("ranker") is None
    assert [live for _, live in registry.cards()] == [False, False]
    with pytest.raises(NotFoundError, match="no version of model 'ranker' is live"):
        registry.rollback("ranker")
    # What was live before the model went out of service does not come back by itself.
    registry.promote("ranker", "v2")
    assert registry.rollback("ranker") is None


def test_a_crash_before_the_note_of_going_out_of_service_changes_nothing(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, "v1", "v2")
    registry.promote("ranker", "v1")
    (tmp_path / "ranker" / "LIVE").unlink()
    registry.promote("ranker", "v2")
    assert registry.rollback("ranker") is None


def test_a_model_that_stages_cannot_do_without_stays(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    registry.add(card("v1", kind="cross-encoder"), write_weights)
    with pytest.raises(NotFoundError, match="live before 'v1', and stages cannot do without a model of kind 'cross-e"):
        registry.rollback("ranker")
    assert registry.live_version("ranker") == "v1"
    assert [move.action for move in registry.history("ranker")] == ["promote"]


@settings(max_examples=25)  # each waits for the disk
@given(st.lists(st.sampled_from(["v1", "v2", "v3", "back"]), max_size=20))
def test_promotions_and_rollbacks_are_a_stack(tmp_path_factory: pytest.TempPathFactory, moves: list[str]) -> None:
    registry = registry_of(tmp_path_factory.mktemp("registry"), "v1", "v2", "v3")
    stack: list[str] = []
    for move in moves:
        if move != "back":
            registry.promote("ranker", move)
            stack += [move] if stack[-1:] != [move] else []
        elif stack:
            stack.pop()
            assert registry.rollback("ranker") == (stack[-1] if stack else None)
        else:
            with pytest.raises(NotFoundError):
                registry.rollback("ranker")
        assert registry.live_version("ranker") == (stack[-1] if stack else None)


def test_a_registry_without_a_history_can_be_rolled_back_too(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, "v1", "v2")
    (tmp_path / "ranker" / "LIVE").write_text("v1\n")
    registry.promote("ranker", "v2")
    assert registry.rollback("ranker") == "v1"


def test_versions_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, "v1", "v2", "v3")
    for version in ("v1", "v2", "v3"):
        registry.promote("ranker", version)
    (tmp_path / "ranker" / "v2" / "model_card.json").unlink()
    assert registry.rollback("ranker") == "v1"
    registry.promote("ranker", "v3")
    (tmp_path / "ranker" / "v1" / "model_card.json").unlink()
    assert registry.rollback("ranker") is None


def test_measures_are_compared_side_by_side(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    registry.add(replace(card("v1"), measures={"nDCG@10": 0.4}), write_weights)
    registry.add(replace(card("v2"), measures={"nDCG@10": 0.5, "RR@10": 0.6}, feature_set="default@1"), write_weights)
    assert registry.compare("ranker", ["v1", "v2"]) == {"nDCG@10": [0.4, 0.5], "RR@10": [None, 0.6]}
    with pytest.raises(NotFoundError, match=r"no version 'v9'.*it has v1, v2"):
        registry.compare("ranker", ["v1", "v9"])


def test_directories_are_named_as_in_logs(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    path = registry.add(card("v1"), write_weights)
    assert registry.label(path) == "ranker@v1" == card("v1").label
    assert registry.label(tmp_path / "ranker") is None
    assert registry.label(Path("cross-encoder/ms-marco-MiniLM-L6-v2")) is None


def test_writers_take_turns(tmp_path: Path) -> None:
    versions = [f"v{number}" for number in range(8)]
    registry_of(tmp_path, *versions)

    def move(number: int) -> None:
        registry = ModelRegistry(tmp_path)  # what another process would have
        registry.promote("ranker", versions[number % 8], why=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move, range(64)))
    registry = ModelRegistry(tmp_path)
    history = registry.history("ranker")
    assert history[-1].version == registry.live_version("ranker")
    # Each move starts where the one before it ended: none was lost, none was made up.
    assert [move.previous for move in history] == [None, *(move.version for move in history[:-1])]


def test_one_of_many_that_add_the_same_version_wins(tmp_path: Path) -> None:
    def add(number: int) -> bool:
        try:
            ModelRegistry(tmp_path).add(card("v1"), write_weights)
        except InvalidInputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(16))) == 1
    assert sorted(path.name for path in (tmp_path / "ranker").iterdir()) == [".lock", "HISTORY.jsonl", "LIVE", "v1"]

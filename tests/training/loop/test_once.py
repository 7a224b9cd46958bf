"""Turns of the loop: what they leave, that an interrupted one is gone on with, and what the command says."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from rankers.errors import ConfigError, InvalidInputError, NotFoundError
from rankers.registry import ModelRegistry
from tests.training.loop.world import open_shop, visit
from training.loop.command import loop
from training.loop.once import Loop
from training.loop.settings import LoopSettings, load_settings


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    open_shop(tmp_path)
    return tmp_path


def settings_of(shop: Path) -> LoopSettings:
    return load_settings(shop / "loop.yaml")


class InterruptedError(Exception):
    """What a test raises where a process would be killed."""


@pytest.mark.parametrize("step", ["train", "evaluate", "promote", "finished"])
def test_an_interrupted_turn_is_gone_on_with(shop: Path, step: str) -> None:
    visit(shop, sessions=25, seed=1)

    def interrupt(what: str, _done: int, _total: int) -> None:
        if what == step:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Loop(settings_of(shop), on_progress=interrupt).turn()
    (before,) = Loop(settings_of(shop)).runs.all()
    assert not before.finished
    visit(shop, sessions=5, seed=2, days=30)
    outcome = Loop(settings_of(shop)).turn()
    (after,) = Loop(settings_of(shop)).runs.all()
    assert outcome.run == before.name == after.name
    assert after.finished
    assert after.steps["export"] == before.steps["export"], "what was exported first is what was learned from"
    assert outcome.decision.promoted, outcome.decision.reasons
    assert outcome.live == after.name


def test_two_logs_that_are_equal_give_models_that_are_equal(tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        open_shop(folder)
        visit(folder, sessions=25, seed=1)
        live = ModelRegistry(folder / "models").root / "ranker"
        outcome = Loop(settings_of(folder)).turn()
        assert outcome.live is not None
        weights.append((live / outcome.live / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_too_little_is_refused_with_the_reason_and_changes_nothing(shop: Path) -> None:
    visit(shop, sessions=5, seed=1)
    outcome = Loop(settings_of(shop)).turn()
    assert not outcome.decision.promoted
    assert any("enough sessions" in reason for reason in outcome.decision.reasons)
    assert outcome.live is None
    assert not (shop / "models" / "ranker").exists()
    assert "enough sessions" in outcome.report.read_text()


def test_the_next_candidate_is_held_against_the_live_one(shop: Path) -> None:
    visit(shop, sessions=25, seed=1)
    first = Loop(settings_of(shop)).turn()
    visit(shop, sessions=25, seed=2, days=30)
    second = Loop(settings_of(shop)).turn()
    checks = {check.name: check for check in second.decision.checks}
    assert checks["examination as before"].holds
    assert not checks["better by clicks"].holds, "the same users teach nothing new"
    assert second.live == first.live


def test_a_linear_scorer_is_learned_where_the_file_says_so_and_after_another_starts_anew(shop: Path) -> None:
    visit(shop, sessions=25, seed=1)
    first = Loop(settings_of(shop)).turn()
    (shop / "loop.yaml").write_text((shop / "loop.yaml").read_text() + "scorer: linear\nwarm_start: true\n")
    visit(shop, sessions=25, seed=2, days=30)
    second = Loop(settings_of(shop)).turn()
    learned = [shop / "var" / "loop" / "ranker" / each.run / "candidate" for each in (first, second)]
    layers = [sum(name.endswith("weight") for name in load_file(path / "weights.safetensors")) for path in learned]
    assert layers == [3, 1]


def test_an_empty_log_says_what_to_do(shop: Path) -> None:
    with pytest.raises((InvalidInputError, NotFoundError), match=r"no impressions"):
        Loop(settings_of(shop)).turn()


def test_a_model_that_no_stage_serves_is_refused(shop: Path) -> None:
    visit(shop, sessions=5, seed=1)
    with pytest.raises(ConfigError, match="nothing would serve the model"):
        Loop(settings_of(shop).model_copy(update={"model": "other"})).turn()


def test_the_command(shop: Path) -> None:
    runner = CliRunner()
    settings = ["--settings", str(shop / "loop.yaml")]
    visit(shop, sessions=25, seed=1)
    first = runner.invoke(loop, ["run", *settings])
    assert first.exit_code == 0, first.output
    assert "promoted" in first.output
    watched = runner.invoke(loop, ["watch", *settings, "--looks", "1", "--new-events", "1"], catch_exceptions=False)
    assert watched.exit_code == 0
    again = runner.invoke(loop, ["run", *settings])
    assert again.exit_code == 3
    assert "stays live" in again.output
    listed = runner.invoke(loop, ["status", *settings])
    assert "promoted" in listed.output
    assert "refused" in listed.output
    (card, _), *_ = ModelRegistry(shop / "models").cards()
    back = runner.invoke(loop, ["rollback", *settings])
    assert isinstance(back.exception, NotFoundError)
    registry = ModelRegistry(shop / "models")
    assert registry.live_version("ranker") == card.version


def test_a_log_too_thin_for_debiasing_is_believed_as_it_is_and_the_page_says_so(shop: Path) -> None:
    visit(shop, sessions=12, seed=1)
    settings = settings_of(shop)
    gate = settings.gate.model_copy(
        update={"clicks": settings.gate.clicks.model_copy(update={"min_sessions": 1, "min_clicks": 1})}
    )
    outcome = Loop(settings.model_copy(update={"gate": gate})).turn()
    (run,) = Loop(settings).runs.all()
    assert any("sessions for each list" in reason for reason in run.steps["train"]["naive_because"])
    assert "clicks were taken as they are" in outcome.report.read_text()

"""Turns of the loop: what they leave, that an interrupted one is gone on with, and what the command says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from index.clicklog.interchange import export_log, import_log
from index.clicklog.store import open_click_log
from rankers.errors import ConfigError, InvalidInputError, NotFoundError
from rankers.registry import ModelCard, ModelRegistry
from tests.postgres import empty_schema
from tests.training.loop.world import BEGIN, FEATURE_SET, open_shop, visit
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


def test_what_goes_live_during_a_turn_is_not_overwritten(shop: Path) -> None:
    visit(shop, sessions=25, seed=1)

    registry = ModelRegistry(shop / "models")

    def copy_candidate(folder: Path) -> None:
        (run,) = Loop(settings_of(shop)).runs.all()
        shutil.copytree(run.folder / "candidate", folder, dirs_exist_ok=True)

    def go_live(what: str, _done: int, _total: int) -> None:
        if what == "promote":
            card = ModelCard("ranker", "by-hand", "ltr", "somebody", "", "", feature_set="shop@1")
            registry.add(card, copy_candidate)

    outcome = Loop(settings_of(shop), on_progress=go_live).turn()
    assert [check.name for check in outcome.decision.checks if not check.holds] == ["live as at the export"]
    assert outcome.decision.reasons == [
        "live as at the export: by-hand is live, needed nothing, which it was compared with"
    ]
    assert outcome.live == registry.live_version("ranker") == "by-hand"
    assert "by-hand is live" in outcome.report.read_text()
    listed = CliRunner().invoke(loop, ["status", "--settings", str(shop / "loop.yaml")])
    assert "refused" in listed.output


def test_an_interrupted_turn_keeps_its_window_and_splits_within_it(shop: Path) -> None:
    visit(shop, sessions=20, seed=1)
    visit(shop, sessions=5, seed=2, days=(datetime.now(UTC) - BEGIN).days - 1)

    def interrupt(what: str, _done: int, _total: int) -> None:
        if what == "train":
            raise InterruptedError

    settings = settings_of(shop).model_copy(update={"window_days": 10.0})
    with pytest.raises(InterruptedError):
        Loop(settings, on_progress=interrupt).turn()
    # As if the rest of the window had passed in between.
    outcome = Loop(settings.model_copy(update={"window_days": 0.01})).turn()
    (run,) = Loop(settings).runs.all()
    assert 100 <= run.steps["train"]["sessions"] <= 105, "of 150 in the window, 30 % are held out"
    assert "decided by 4" in outcome.report.read_text()


def test_an_interrupted_turn_does_not_go_on_with_other_features(shop: Path) -> None:
    visit(shop, sessions=5, seed=1)

    def interrupt(what: str, _done: int, _total: int) -> None:
        if what == "train":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Loop(settings_of(shop), on_progress=interrupt).turn()
    (shop / "features.yaml").write_text(FEATURE_SET.replace("version: 1", "version: 2"))
    with pytest.raises(ConfigError, match=r"'shop@1', it makes 'shop@2' now"):
        Loop(settings_of(shop)).turn()


def test_a_log_with_other_features_only_says_so_and_is_not_kept(shop: Path) -> None:
    visit(shop, sessions=2, seed=1, feature_set="shop@2")
    with pytest.raises(InvalidInputError, match="none of 60 impressions was logged with feature set 'shop@1'"):
        Loop(settings_of(shop)).turn()
    assert not list((shop / "var" / "loop" / "ranker").glob("*/"))


def test_new_events_are_counted_though_old_ones_are_deleted_meanwhile(shop: Path) -> None:
    visit(shop, sessions=5, seed=1)
    url = f"sqlite:///{shop}/clicks.sqlite"
    watch = ["watch", "--settings", str(shop / "loop.yaml"), "--looks", "1", "--new-events", "20"]
    assert CliRunner().invoke(loop, watch, catch_exceptions=False).exit_code == 0
    assert Loop(settings_of(shop)).new_events() == 0
    visit(shop, sessions=1, seed=2, days=30)
    log = open_click_log(url)
    log.delete_before(BEGIN + timedelta(days=20))
    (left,) = log.status().events.values()
    assert Loop(settings_of(shop)).new_events() == left
    assert CliRunner().invoke(loop, watch, catch_exceptions=False).exit_code == 0
    assert len(Loop(settings_of(shop)).runs.all()) == 2
    log.delete_user("user 2 0")
    assert CliRunner().invoke(loop, watch, catch_exceptions=False).exit_code == 0
    assert len(Loop(settings_of(shop)).runs.all()) == 2, "what is deleted is nothing new"
    export_log(log, shop / "moved")
    log.close()
    moved = open_click_log(f"sqlite:///{shop}/moved.sqlite")
    events = import_log(moved, shop / "moved").events
    moved.close()
    elsewhere = settings_of(shop).model_copy(update={"log": f"sqlite:///{shop}/moved.sqlite"})
    assert Loop(elsewhere).new_events() == events, "another database counts on its own"


def test_a_log_in_postgresql_teaches_what_one_in_a_file_does(shop: Path) -> None:
    visit(shop, sessions=25, seed=1)
    with empty_schema() as url:
        for log in (open_click_log(f"sqlite:///{shop}/clicks.sqlite"), open_click_log(url)):
            if log.status().impressions:
                export_log(log, shop / "moved")
            else:
                import_log(log, shop / "moved")
            log.close()
        elsewhere = settings_of(shop).model_copy(update={"log": url, "work_dir": shop / "elsewhere"})
        outcome = Loop(elsewhere).turn()
        assert Loop(elsewhere).new_events() == 0
    assert outcome.decision.promoted, outcome.decision.reasons
    (there,) = Loop(elsewhere).runs.all()
    ModelRegistry(shop / "models").rollback("ranker")
    Loop(settings_of(shop)).turn()
    (here,) = Loop(settings_of(shop)).runs.all()
    assert there.steps["train"]["data_hash"] == here.steps["train"]["data_hash"]


def test_a_look_that_fails_does_not_end_the_watch(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(shop, sessions=2, seed=1)
    settings = shop / "loop.yaml"
    text = settings.read_text()
    settings.unlink()
    settings.mkdir()  # an OSError, and none of ours

    def mend(_seconds: float) -> None:
        settings.rmdir()
        settings.write_text(text)

    monkeypatch.setattr("training.loop.command.time.sleep", mend)
    watched = CliRunner().invoke(loop, ["watch", "--settings", str(settings), "--looks", "2", "--new-events", "1"])
    assert watched.exit_code == 0, watched.output
    assert "IsADirectoryError" in watched.output
    assert "not promoted" in watched.output


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
    report = outcome.report.read_text()
    assert "enough sessions" in report
    assert "a held-out log that can be believed" in report
    assert "to decide by" in report


def test_the_next_candidate_is_held_against_the_live_one(shop: Path) -> None:
    visit(shop, sessions=25, seed=1)
    first = Loop(settings_of(shop)).turn()
    registry = ModelRegistry(shop / "models")

    def without_curve(folder: Path) -> None:
        shutil.copytree(registry.root / "ranker" / str(first.live), folder, dirs_exist_ok=True)
        described = json.loads((folder / "ranker.json").read_text())
        (folder / "ranker.json").write_text(json.dumps(described | {"propensities": None}))

    registry.add(replace(registry.card("ranker"), version="naive", parent=first.live), without_curve)
    visit(shop, sessions=25, seed=2, days=30)
    second = Loop(settings_of(shop)).turn()
    checks = {check.name: check for check in second.decision.checks}
    assert checks["examination as before"].holds
    assert checks["examination as before"].found.startswith("mean change"), "since the last model that had a curve"
    assert not checks["better by clicks"].holds, "the same users teach nothing new"
    assert second.live == "naive"


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
    registry = ModelRegistry(shop / "models")
    ((card, _),) = registry.cards()
    learned = registry.root / "ranker" / card.version

    def copy(folder: Path) -> None:
        shutil.copytree(learned, folder, dirs_exist_ok=True)

    registry.add(replace(card, version="next"), copy)
    back = runner.invoke(loop, ["rollback", *settings, "--why", "people complain"], catch_exceptions=False)
    assert back.exit_code == 0
    assert f"ranker@{card.version} is live" in back.output
    assert registry.live_version("ranker") == card.version
    further = runner.invoke(loop, ["rollback", *settings, "--why", "they still do"], catch_exceptions=False)
    assert further.exit_code == 0
    assert registry.live_version("ranker") is None
    assert [(move.action, move.version, move.why) for move in registry.history("ranker")[-2:]] == [
        ("rollback", card.version, "people complain"),
        ("rollback", None, "they still do"),
    ]
    assert isinstance(runner.invoke(loop, ["rollback", *settings]).exception, NotFoundError)


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

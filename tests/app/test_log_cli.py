"""`shortlist log`, run as a user runs it."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from index.clicklog.store import Records, open_click_log
from rankers.events import Event, Impression, hash_key

NOW = datetime.now(UTC)
OLD = Impression("old", "tea", ("a", "b"), "p", "v", NOW - timedelta(days=10), user_key=hash_key("ada", "s"))
YOUNG = Impression("young", "tea", ("a", "b"), "p", "v", NOW, user_key=hash_key("bob", "s"))
CLICKS = [
    Event("1", "old", "a", "click", 1, NOW - timedelta(days=10)),
    Event("2", "young", "b", "dwell", 2, NOW, 1.5),
    Event("3", "not yet", "b", "click", None, NOW),
]


def log_command(folder: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    command = [sys.executable, "-m", "app.cli", "log", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment or None)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a click log where the configuration expects one."""
    log = open_click_log(f"sqlite:///{tmp_path}/var/clicks.sqlite")
    log.add([Records([OLD, YOUNG], CLICKS)])
    log.close()
    return tmp_path


def test_status_export_and_import(folder: Path) -> None:
    status = log_command(folder, "status")
    assert [line.split()[1:-1] for line in status.splitlines() if "│" in line] == [
        ["impressions", "│", "2"],
        ["click", "│", "2"],
        ["dwell", "│", "1"],
        ["events", "without", "an", "impression", "(yet)", "│", "1"],
    ]
    for form, options in (("parquet", []), ("jsonl", ["--format", "jsonl"])):
        assert "wrote 2 impressions and 3 events" in log_command(folder, "export", form, *options)
        assert sorted(file.name for file in (folder / form).iterdir()) == [f"events.{form}", f"impressions.{form}"]
    other = ["--url", "sqlite:///other.sqlite"]
    assert "added 2 impressions and 3 events" in log_command(folder, "import", "parquet", *other)
    assert "added 0 impressions and 0 events" in log_command(folder, "import", "jsonl", *other)
    assert "error: nowhere has neither" in log_command(folder, "import", "nowhere", status=2)


def test_users_and_old_records_are_deleted(folder: Path) -> None:
    gone = log_command(folder, "delete-user", "ada", SHORTLIST_CLICK_LOG_SALT="s")
    assert "deleted 1 impressions and 1 events" in gone
    assert "deleted 0 impressions and 0 events" in log_command(folder, "delete-user", "bob")  # hashed with another salt
    bob = str(YOUNG.user_key)
    assert "deleted 1 impressions and 1 events" in log_command(folder, "delete-user", "--hash", bob)
    log = open_click_log(f"sqlite:///{folder}/var/clicks.sqlite")
    log.add_impressions([replace(OLD, id="old again"), YOUNG])
    assert "deleted 1 impressions and 0 events" in log_command(folder, "expire", "9.5")
    assert [impression.id for _, impression in log.impressions()] == ["young"]
    log.close()

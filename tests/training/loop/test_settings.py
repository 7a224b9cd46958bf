"""The loop's file: paths relative to it, and errors that say what is wrong."""

from pathlib import Path

import pytest

from rankers.errors import ConfigError
from training.loop.settings import load_settings


def written(folder: Path, text: str) -> Path:
    path = folder / "loop.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "model: ranker\nlog: sqlite:///var/clicks.sqlite\ngate: {collections: [{data: judged, pipeline: learned}]}\n"
    settings = load_settings(written(tmp_path, text))
    assert settings.log == f"sqlite:///{tmp_path}/var/clicks.sqlite"
    assert settings.config == tmp_path / "shortlist.yaml"
    assert settings.work_dir == tmp_path / "var" / "loop"
    assert settings.gate.collections[0].data == tmp_path / "judged"


def test_other_databases_are_left_alone(tmp_path: Path) -> None:
    url = "postgresql+psycopg://root@127.0.0.1/test"
    assert load_settings(written(tmp_path, f"model: ranker\nlog: {url}\n")).log == url
    assert load_settings(written(tmp_path, "model: ranker\nlog: sqlite:////data/c.sqlite\n")).log == (
        "sqlite:////data/c.sqlite"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log: sqlite:///x", "model"),
        ("model: m\nlearner: wishes", "dla"),
        ("model: m\nheld_out: 1.5", "held_out"),
        ("model: [", "cannot be used"),
        ("model: m\ngates: {}", "gates"),
        ("model: m\nscorer: deep", "scorer"),
        ("model: m\nlearner: lightgbm\nscorer: linear", "'lightgbm' makes trees"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(written(tmp_path, text))


def test_a_missing_file_says_what_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which model to learn from which log"):
        load_settings(tmp_path / "loop.yaml")

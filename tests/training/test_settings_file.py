"""Settings of training runs from files and command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

import training.cross_encoder
from rankers.errors import InvalidInputError
from training.cross_encoder.settings import CrossEncoderSettings
from training.settings_file import load_settings


def test_what_is_said_later_counts(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("loss: binary\nepochs: 2\ncandidates: 5\n")
    loaded = load_settings(CrossEncoderSettings, path, ["epochs=3"], loss="listnet", curriculum=None)
    assert (loaded.loss, loaded.epochs, loaded.candidates, loaded.curriculum) == ("listnet", 3, 5, 0.0)


@pytest.mark.parametrize(
    ("content", "change", "message"),
    [
        ("[1]", "epochs=1", "not a mapping of settings but list"),
        (": :", "epochs=1", "cannot read settings"),
        ("epochs: 0", "candidates=3", "epochs: Input should be greater than or equal to 1"),
        ("unknown: 1", "epochs=1", "unknown: Extra inputs are not permitted"),
        ("epochs: 1", "epochs", "--set takes name=value, got 'epochs'"),
        ("epochs: 1", "loss=[", r"--set 'loss=\['.* not YAML"),
        ("epochs: 1", "seed=-1", "seed: Input should be greater than or equal to 0"),
    ],
)
def test_what_is_no_setting_is_named(tmp_path: Path, content: str, change: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        load_settings(CrossEncoderSettings, path, [change])


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"loss: \xff")
    with pytest.raises(InvalidInputError, match="cannot read settings from"):
        load_settings(CrossEncoderSettings, tmp_path / "recipe.yaml")


def test_the_recipe_of_the_packaged_cross_encoder_is_one() -> None:
    path = Path(training.cross_encoder.__file__).parent / "recipes" / "minilm.yaml"
    assert load_settings(CrossEncoderSettings, path).layers == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read settings from .*nothing\.yaml"):
        load_settings(CrossEncoderSettings, tmp_path / "nothing.yaml")

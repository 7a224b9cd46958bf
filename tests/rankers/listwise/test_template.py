"""Templates are checked when they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rankers.errors import ConfigError
from rankers.listwise.labels import LETTERS
from rankers.listwise.template import load_template

GOOD = {
    "name": "mine",
    "system": "Rank.",
    "user": "{query}\n{passages}",
    "passage": "[{label}] {text}",
    "answer": "[",
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (GOOD | changes).items() if value is not None}))
    return path


def test_the_packaged_template_is_that_of_first() -> None:
    template = load_template("first")
    assert template.user.startswith(
        "I will provide you with {num} passages, each indicated by an alphabetical identifier []"
    )
    assert template.user.count("{query}") == 2
    assert (template.passage, template.answer, template.labels) == ("[{label}] {text}", "[", LETTERS)


def test_a_template_of_ones_own_is_a_file(tmp_path: Path) -> None:
    assert load_template(write(tmp_path)).name == "mine"
    assert load_template(str(write(tmp_path, labels=["1", "2"]))).labels == ("1", "2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "{passages}"}, "user: .*needs {query}"),
        ({"user": "{query}"}, "user: .*{passages} once"),
        ({"user": "{query} {passages} {passages}"}, "user: .*{passages} once"),
        ({"user": "{query} {passages} {other}"}, "user: .*has .*'other'"),
        ({"passage": "{text}"}, "passage: .*{label} and {text} once"),
        ({"passage": "{text} [{label}] {score}"}, "passage: .*{label} and {text} once"),
        ({"passage": "[{label}] {score} {text}"}, "passage: .*{label} and {text} once"),
        ({"answer": ""}, "answer: .*directly before a label"),
        ({"answer": "{label}"}, "answer: .*directly before a label"),
        ({"labels": ["A"]}, "labels: .*at least two"),
        ({"labels": ["A", "A"]}, "labels: .*all different"),
        ({"system": None}, "system: Field required"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_template(write(tmp_path, **changes))


def test_a_written_answer_may_begin_freely(tmp_path: Path) -> None:
    assert load_template(str(write(tmp_path, answer="", written=True))).written


def test_a_template_that_is_not_there_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no template 'second': neither a file nor a packaged one"):
        load_template("second")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_template(broken)
    broken.write_text("just text")
    with pytest.raises(ConfigError, match="the file: "):
        load_template(broken)

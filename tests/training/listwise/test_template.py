"""Templates that can be trained with, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankers.errors import ConfigError
from rankers.listwise.template import load_template
from training.listwise.settings import ListwiseSettings
from training.listwise.template import trainable_template


def settings_of(template: str, *, language_model_weight: float = 1.0) -> ListwiseSettings:
    return ListwiseSettings(template=template, language_model_weight=language_model_weight)


@pytest.fixture
def brackets(tmp_path: Path) -> str:
    """A template whose identifiers stand in round brackets."""
    path = tmp_path / "round.yaml"
    path.write_text(
        "name: round\nsystem: Rank.\nuser: '{passages} {query}'\npassage: '({label}) {text}'\nanswer: 'Best: ('\n"
    )
    return str(path)


@pytest.mark.parametrize("name", ["first", "first_small"])
def test_templates_of_a_permutation_can_be_trained_with(name: str) -> None:
    assert trainable_template(settings_of(name)) == load_template(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("insert_rank", "shows scores of the first stage, .* take first"),
        ("rank_zephyr", "answers are written out, .* take first"),
        ("reasoning", "answers are written out"),
        ("group_grades", "answers are written out"),
    ],
)
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_templates_that_cannot_be_trained_with_are_refused(name: str, message: str, weight: float) -> None:
    with pytest.raises(ConfigError, match=f"template {name!r}: .*{message}"):
        trainable_template(settings_of(name, language_model_weight=weight))


def test_the_language_model_loss_teaches_only_the_answer_that_the_template_asks_for(brackets: str) -> None:
    for template in ("setwise", brackets):
        with pytest.raises(
            ConfigError, match=r"teaches answers such as \[B\] > \[A\], .* set language_model_weight to 0"
        ):
            trainable_template(settings_of(template))
        assert trainable_template(settings_of(template, language_model_weight=0)) == load_template(template)

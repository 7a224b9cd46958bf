"""Recipes from YAML: paths are found, mistakes are named."""

from pathlib import Path

import pytest

from rankers.errors import ConfigError
from training.data.recipe import QrelsSource, RunSource, load_recipe

RECIPE = """
seed: 3
against: [exam]
sources:
  judged: {kind: qrels, dataset: data/small, weight: 0.5, without: [test]}
  run: {kind: run, dataset: /data/large, run: runs/a.trec}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_relative_paths_are_those_of_the_file(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, RECIPE))
    judged, run = recipe.sources["judged"], recipe.sources["run"]
    assert isinstance(judged, QrelsSource)
    assert isinstance(run, RunSource)
    assert (recipe.seed, recipe.against, recipe.against_queries) == (3, (tmp_path / "exam",), ())
    assert (judged.dataset, judged.weight, judged.without) == (tmp_path / "data" / "small", 0.5, ("test",))
    assert (run.dataset, run.run, run.first_stage) == (Path("/data/large"), tmp_path / "runs" / "a.trec", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: {}", "sources"),
        ("sources: [", "not YAML"),
        ("sources: {a: {kind: magic}}", "sources.a"),
        ("sources: {a: {kind: qrels}}", "sources.a.qrels.dataset: Field required"),
        ("sources: {a: {kind: qrels, dataset: d, weight: 0}}", "greater than 0"),
        ("sources: {a: {kind: qrels, dataset: d, weight: .inf}}", "finite number"),
        ("sources: {a: {kind: qrels, dataset: d, weight: .nan}}", "sources.a.qrels.weight"),
        ("sources: {a: {kind: qrels, dataset: d, dept: 3}}", "sources.a.qrels.dept"),
        ("sources: {a: {kind: teacher, dataset: d, teacher: t, targets: grades}}", "targets"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, text))


def test_a_missing_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe at"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_recipe(tmp_path)

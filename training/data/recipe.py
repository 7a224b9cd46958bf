"""A recipe for training lists: which sources, how much of each, and which test sets must not be in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankers.errors import ConfigError
from training.data.labelling import Targets


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Spec):
    """What every source has.

    Parameters
    ----------
    weight
        How often each of its lists comes in the mix: 0.5 takes half of them, drawn, and at least one; 2 takes each
        twice.
    limit
        Only so many of its queries, drawn; of its lists, where they come ready. All if not given.
    """

    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    limit: int | None = Field(None, ge=1)


class CollectionSource(_Source):
    """What every source has whose candidates are searched for.

    Parameters
    ----------
    dataset
        A directory in BEIR layout.
    depth
        Candidates of a list.
    split
        Whose judged queries; None for all queries of the directory, judged or not, those of its test split too.
    candidates
        Pipeline that finds them; its index is built from the collection and kept under ``var/indexes``.
    index
        An index to search as it is, instead of that.
    first_stage
        A TREC run that has the candidates, instead of a pipeline.
    without
        Splits of the collection whose judged documents are in no list, for collections whose splits have documents of
        their own in one file.
    """

    dataset: Path
    depth: int = Field(20, ge=2)
    split: str | None = "train"
    candidates: str = "bm25"
    index: Path | None = None
    first_stage: Path | None = None
    without: tuple[str, ...] = ()


class QrelsSource(CollectionSource):
    """Judgements are the targets; at most `most_missed` relevant documents that were not found are added to a list."""

    kind: Literal["qrels"]
    split: str = "train"
    most_missed: int = Field(5, ge=0)


class TeacherSource(CollectionSource):
    """The order of a pipeline is the target, or its scores.

    Parameters
    ----------
    teacher
        A pipeline. One with stages reorders the candidates, whatever its own retriever is; one that only retrieves
        searches by itself, and candidates that are not among its best `teacher_depth` are left out.
    targets
        ``order`` or ``scores``.
    incomplete
        Keep the order where a written answer left candidates out, or some windows of several were not read; such
        queries are left out otherwise. Where nothing was read there is no order to keep.
    """

    kind: Literal["teacher"]
    teacher: str
    targets: Targets = "order"
    teacher_depth: int = Field(1000, ge=1)
    incomplete: bool = False


class RunSource(_Source):
    """The order of a TREC run is the target, or its scores; without a `first_stage` the candidates come shuffled."""

    kind: Literal["run"]
    dataset: Path
    run: Path
    depth: int = Field(20, ge=2)
    first_stage: Path | None = None
    targets: Targets = "order"


class PermutationsSource(_Source):
    """Windows as LLMs ordered them are the lists; answers that leave candidates out are kept only if `incomplete`."""

    kind: Literal["permutations"]
    dataset: Path
    log: Path
    incomplete: bool = False


class ListsSource(_Source):
    """Lists that were made before."""

    kind: Literal["lists"]
    path: Path


SourceSpec = Annotated[
    QrelsSource | TeacherSource | RunSource | PermutationsSource | ListsSource, Field(discriminator="kind")
]


class Recipe(_Spec):
    """The whole file.

    Parameters
    ----------
    sources
        By name, which becomes part of the `source` of each training list.
    seed
        Of everything drawn.
    against
        Collections in BEIR layout whose judged test queries and documents must not occur.
    against_queries
        Collections whose judged test queries must not occur, and whose documents may: training and test share them.
    """

    sources: Mapping[str, SourceSpec] = Field(min_length=1)
    seed: int = 0
    against: tuple[Path, ...] = ()
    against_queries: tuple[Path, ...] = ()


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to its folder.

    Parameters
    ----------
    path
        YAML.

    Returns
    -------
    Recipe
        Checked; nothing that it names has been opened.

    Raises
    ------
    ConfigError
        If it cannot be read, or says something that cannot be; the message names the entry.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        recipe = Recipe.model_validate(content)
    except FileNotFoundError:
        raise ConfigError(f"no recipe at {path}; docs/training-data.md says how to write one") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name the recipe in it") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        details = (f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {'; '.join(details)}") from error
    located: Recipe = _located(recipe, path.parent)
    return located


def _located(value: Any, folder: Path) -> Any:
    """Put the folder of the recipe before every relative path in a specification."""
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, tuple):
        return tuple(_located(item, folder) for item in value)
    if isinstance(value, Mapping):
        return {name: _located(item, folder) for name, item in value.items()}
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _located(item, folder) for name, item in value})
    return value

"""Feature sets: which numbers a learned ranker sees of a document, declared in YAML, named and versioned.

The matrix is made in one place, when a list is served; training reads what was logged then, so the two cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankers.errors import ConfigError, InvalidInputError
from rankers.ltr.feature_kinds import Candidates, Encode, FeatureSpec
from rankers.ltr.terms import CollectionStatistics, Part, load_statistics, splitter
from rankers.types import Ranking

FOLDER = Path(__file__).parent / "feature_sets"


class FeatureSet(BaseModel):
    """Features in a fixed order.

    `version` has to change whenever a feature does, because logs and models name the set by `id`; and so whenever what
    is below does. `stemmer` is the Snowball stemmer of the documents' language; null compares words as they are.
    `statistics` is a file that ``shortlist index statistics`` wrote, for BM25; with none the candidates are counted.
    `encoder` is an embedding model, a name of the registry or of a hub, for features of vectors; it costs a forward
    pass over every document.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: int = Field(ge=1)
    stemmer: str | None = "english"
    statistics: Path | None = None
    encoder: str | None = None
    features: tuple[FeatureSpec, ...] = Field(min_length=1)

    @field_validator("features")
    @classmethod
    def _names_differ(cls, value: tuple[FeatureSpec, ...]) -> tuple[FeatureSpec, ...]:
        names = [name for feature in value for name in feature.names]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"feature names must differ, {min(twice)!r} occurs twice")
        return value

    @field_validator("stemmer")
    @classmethod
    def _stemmer_exists(cls, value: str | None) -> str | None:
        try:
            splitter(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def id(self) -> str:
        """What logs and model cards call it: ``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, F of them."""
        return tuple(name for feature in self.features for name in feature.names)

    def collection(self) -> dict[Part, CollectionStatistics] | None:
        """Read the statistics of the collection; None if there are none, `ConfigError` if they cannot be used."""
        return load_statistics(self.statistics, stemmer=self.stemmer) if self.statistics is not None else None

    def extract(
        self,
        ranking: Ranking,
        *,
        now: datetime,
        statistics: Mapping[Part, CollectionStatistics] | None = None,
        encode: Encode | None = None,
    ) -> npt.NDArray[np.float32]:
        """Make the features of a list; equal input gives equal bits.

        Parameters
        ----------
        ranking
            What is to be ordered, L documents; the rankings before it give ranks and scores.
        now
            What freshness is measured from, with a time zone.
        statistics
            For BM25, from `collection`; those of the candidates if not given.
        encode
            The encoder; what needs one is missing if not given.

        Returns
        -------
        array
            float32 [L, F], rows in the order of `ranking`; NaN where there is no such number, never infinite.

        Raises
        ------
        InvalidInputError
            If `now` has no time zone.
        """
        if now.tzinfo is None:
            raise InvalidInputError(f"now is {now}, which has no time zone; give one, such as datetime.now(UTC)")
        candidates = Candidates(ranking, splitter(self.stemmer), statistics=statistics, now=now, encode=encode)
        matrix = np.empty((len(ranking), len(self.names)), dtype=np.float32)
        at = 0
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and so missing
            for feature in self.features:
                width = len(feature.names)
                matrix[:, at : at + width] = np.reshape(feature.column(candidates), (len(ranking), width))
                at += width
        matrix[np.isinf(matrix)] = np.nan
        return matrix

    def as_logged(self, ranking: Ranking, matrix: npt.NDArray[np.float32]) -> dict[str, Mapping[str, float | None]]:
        """Write a matrix the way impressions keep it: by document id and name, None where a number is missing.

        A float32 is a float64 and a JSON number without loss, so what is read back is what the ranker saw.
        """
        rows = [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]
        return {
            document_id: dict(zip(self.names, row, strict=True))
            for document_id, row in zip(ranking.ids, rows, strict=True)
        }

    def from_log(self, features: Mapping[str, float | None]) -> npt.NDArray[np.float32]:
        """Read one document's features back: float32 [F], NaN where one is missing."""
        return np.array([features.get(name) for name in self.names], dtype=np.float64).astype(np.float32)


def load_feature_set(source: str | Path) -> FeatureSet:
    """Read a feature set.

    Parameters
    ----------
    source
        Name of a packaged set (``default``), or path of a YAML file; a relative path in it is relative to its folder.

    Returns
    -------
    FeatureSet
        Checked.

    Raises
    ------
    ConfigError
        If there is no such set, or an entry of it is wrong; the message names the entry.

    Examples
    --------
    >>> load_feature_set("default").id
    'default@1'
    """
    packaged = FOLDER / f"{source}.yaml"
    path = packaged if isinstance(source, str) and packaged.is_file() else Path(source)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise ConfigError(f"no feature set {str(source)!r}: neither a file nor a packaged one ({names})")
    try:
        found = FeatureSet.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        return found.model_copy(update={"statistics": found.statistics and path.parent / found.statistics})
    except yaml.YAMLError as error:
        raise ConfigError(f"feature set {path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"feature set {path}: {where}: {first['msg']}") from error

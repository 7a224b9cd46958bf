"""What the numbers in click lists stand for: queries, documents, slots, model versions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class ListKeys:
    """Names of everything that `ClickLists` read from a log number.

    Parameters
    ----------
    queries
        Normalised texts; `ClickLists.queries` points here.
    pair_queries
        int64 [N], the query of each row of features.
    document_ids
        [N], the document of each row of features.
    slots
        Where a place is: ``"list 3"`` for the third of a plain list, ``"grid:4 row 2 column 1"``.
    versions
        int64 [S], the model version that made each list, a place in `version_names`.
    version_names
        Names of model versions.
    """

    queries: tuple[str, ...]
    pair_queries: npt.NDArray[np.int64]
    document_ids: tuple[str, ...]
    slots: tuple[str, ...]
    versions: npt.NDArray[np.int64]
    version_names: tuple[str, ...]

    def rows(self) -> dict[tuple[str, str], int]:
        """Query and document id -> row, to join with judgements."""
        return {
            (self.queries[query], document_id): row
            for row, (query, document_id) in enumerate(zip(self.pair_queries, self.document_ids, strict=True))
        }

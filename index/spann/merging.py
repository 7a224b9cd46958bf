"""Merging: which segments are worth rebuilding, and the rebuilding.

In trials no way of changing a segment in place kept the recall of one that is built anew, so a merge builds one new
segment of everything alive in its inputs (METHODS.md section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.spann.curve import read_curve, write_curve
from index.spann.parameters import SpannParameters
from index.spann.parts import VECTORS_FOLDER, AnyPart, Part, RowNumbers, SegmentSource
from index.spann.rows import write_rows
from index.spann.segment import Segment
from index.spann.segment_build import EXACT_VECTORS
from rankers.errors import InvalidInputError, ShortlistError

GROWTH = 4
"""A segment is merged with newer rows once they are at least a quarter of it: so there are few segments, of sizes that
grow by this factor, and a row is rebuilt a logarithmic number of times."""
FEW_ROWS = 512
"""Fewer new rows count as so many: segments under four times that are always merged."""
MOST_DEAD = 0.25
"""Share of dead rows from which a segment is rebuilt, whatever its size."""


class MergeStoppedError(ShortlistError):
    """The index is being closed."""


@dataclass(frozen=True, slots=True)
class MergeInput:
    """A part, and those rows of it that go into the new segment, ascending."""

    part: AnyPart
    rows: RowNumbers


class Survivors:
    """The vectors of merge inputs as one stream.

    Parameters
    ----------
    inputs
        In the order of the new segment.
    dimensions
        Length of a vector.
    check
        Called before every block; raises to stop.
    """

    def __init__(self, inputs: Sequence[MergeInput], dimensions: int, check: Callable[[], None]) -> None:
        self.dimensions = dimensions
        self._inputs = inputs
        self._check = check

    def __len__(self) -> int:
        return sum(len(one.rows) for one in self._inputs)

    def blocks(self, rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all vectors in order, as float32 [at most `rows`, D]."""
        for one in self._inputs:
            for start in range(0, len(one.rows), rows):
                self._check()
                yield one.part.source.vectors(one.rows[start : start + rows])


def choose(segments: Sequence[Part[SegmentSource]], new_rows: int, *, full: bool) -> list[Part[SegmentSource]]:
    """Choose the segments that are rebuilt together with new rows.

    Parameters
    ----------
    segments
        From old to new.
    new_rows
        Rows alive in the delta buffers.
    full
        Whether to take all.

    Returns
    -------
    list of Part
        Some of them, in their order.
    """
    chosen = [full or part.size < (1 - MOST_DEAD) * part.count for part in segments]
    gathered = new_rows
    for at in reversed(range(len(segments))):
        if not chosen[at] and segments[at].size > GROWTH * max(gathered, FEW_ROWS):
            break
        chosen[at] = True
        gathered += segments[at].size
    return [part for part, taken in zip(segments, chosen, strict=True) if taken]


def fit_to_memory(
    chosen: list[Part[SegmentSource]],
    segments: Sequence[Part[SegmentSource]],
    deltas: Sequence[AnyPart],
    parameters: SpannParameters,
    dimensions: int,
) -> tuple[list[Part[SegmentSource]], SpannParameters]:
    """Say which segments to rebuild, and how, so that the index keeps to its memory.

    Parameters
    ----------
    chosen
        What `choose` gave.
    segments
        All of them.
    deltas
        The delta buffers that are merged.
    parameters
        Of the index.
    dimensions
        Length of a vector.

    Returns
    -------
    tuple
        The segments, all of them if the others would leave too little for a new one; and its parameters.

    Raises
    ------
    InvalidInputError
        If the index has outgrown its memory.
    """
    taken = {id(part) for part in chosen}
    others = sum(part.source.segment.memory_bytes for part in segments if id(part) not in taken)
    rows = sum(part.size for part in (*chosen, *deltas))
    vectors = sum(part.size for part in (*segments, *deltas))
    if rows <= EXACT_VECTORS:  # which takes no memory
        return chosen, parameters
    try:
        return chosen, parameters.for_segment(rows, dimensions, vectors=vectors, others=others)
    except InvalidInputError:
        return list(segments), parameters.for_segment(vectors, dimensions, vectors=vectors, others=0)


def build_segment(
    folder: Path, inputs: Sequence[MergeInput], parameters: SpannParameters, dimensions: int, check: Callable[[], None]
) -> None:
    """Build one segment of all rows of some inputs.

    Parameters
    ----------
    folder
        A new folder.
    inputs
        At least one row in all.
    parameters
        Of the index.
    dimensions
        Length of a vector.
    check
        Called now and then; raises to stop.
    """
    folder.mkdir(parents=True)
    write_rows(
        folder,
        ((one.part.source.name(row), one.part.source.fields(row)) for one in inputs for row in one.rows.tolist()),
    )
    Segment.build(
        folder / VECTORS_FOLDER,
        Survivors(inputs, dimensions, check),
        parameters=parameters,
        on_progress=lambda _phase, _done, _total: check(),
    )
    tuned = max(inputs, key=lambda one: len(one.rows)).part.source
    if isinstance(tuned, SegmentSource) and (curve := read_curve(tuned.folder / VECTORS_FOLDER)) is not None:
        # What was fitted to most of the rows, until somebody tunes again.
        write_curve(folder / VECTORS_FOLDER, replace(curve, is_inherited=True))

"""What can be written to an index, and its form in the log.

A body is one byte for the kind, the length of a JSON object as uint32, the object, and for a put the vectors as
little-endian float32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from index.spann.parameters import Metric
from index.spann.rows import Metadata, metadata_json
from rankers.errors import InvalidInputError

_HEADER = struct.Struct("<cI")
_PUT, _DELETE = b"p", b"d"


@dataclass(frozen=True, slots=True)
class Put:
    """Rows that are there from now on, in place of those with the same ids."""

    ids: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    metadata: tuple[Metadata, ...]


@dataclass(frozen=True, slots=True)
class Deletion:
    """Ids that are gone from now on."""

    ids: tuple[str, ...]


Operation: TypeAlias = Put | Deletion


def encode(operation: Operation) -> bytes:
    """Write an operation as the body of a log record."""
    content: dict[str, object] = {"ids": operation.ids}
    if isinstance(operation, Deletion):
        text = json.dumps(content).encode()
        return _HEADER.pack(_DELETE, len(text)) + text
    if any(operation.metadata):
        content["metadata"] = operation.metadata
    text = json.dumps(content).encode()
    return _HEADER.pack(_PUT, len(text)) + text + np.ascontiguousarray(operation.vectors, dtype="<f4").tobytes()


def decode(body: bytes, dimensions: int) -> Operation:
    """Read the body of a log record.

    Parameters
    ----------
    body
        What `encode` made.
    dimensions
        Length of a vector.

    Returns
    -------
    Operation
        As it was.

    Raises
    ------
    ValueError
        If the body is none.
    """
    try:
        kind, length = _HEADER.unpack_from(body)
        text = body[_HEADER.size : _HEADER.size + length]
        content = json.loads(text)
        ids = tuple(content["ids"])
        if kind == _DELETE:
            return Deletion(ids)
        vectors = np.frombuffer(body, dtype="<f4", offset=_HEADER.size + length).reshape(len(ids), dimensions)
        return Put(ids, vectors.astype(np.float32), tuple(content.get("metadata") or ({},) * len(ids)))
    except (struct.error, KeyError, TypeError) as error:
        raise ValueError(f"it is no operation: {error}") from error


def checked_put(
    ids: Sequence[str],
    vectors: npt.NDArray[np.floating],
    metadata: Sequence[Metadata] | None,
    *,
    dimensions: int,
    metric: Metric,
) -> Put:
    """Check what a caller wants to write.

    Parameters
    ----------
    ids
        Unique.
    vectors
        [len(ids), D], finite; normalised here where the metric is the cosine.
    metadata
        One mapping per id, JSON; None for none.
    dimensions
        D.
    metric
        Of the index.

    Returns
    -------
    Put
        A copy of all of it.

    Raises
    ------
    InvalidInputError
        If anything cannot be indexed; the message names the id.
    """
    checked_ids(ids)
    given = np.asarray(vectors)
    if given.ndim != 2 or given.shape != (len(ids), dimensions):
        raise InvalidInputError(
            f"{len(ids)} ids need vectors [{len(ids)}, {dimensions}], got shape {given.shape}", field="vectors"
        )
    if metadata is not None and len(metadata) != len(ids):
        raise InvalidInputError(f"{len(ids)} ids need as many metadata, got {len(metadata)}", field="metadata")
    rows = checked_vectors(given, metric, [f"the vector of {name!r}" for name in ids])
    held = metadata or [{}] * len(ids)
    fields = [json.loads(metadata_json(name, one)) for name, one in zip(ids, held, strict=True)]
    return Put(tuple(ids), rows, tuple(fields))


def checked_ids(ids: Sequence[str]) -> None:
    """Raise `InvalidInputError` unless ids are unique strings."""
    if isinstance(ids, str):
        raise InvalidInputError(f"ids is the string {ids!r}, must be a list of strings", field="ids")
    seen: set[str] = set()
    for name in ids:
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"an id is {name!r}, must be a string that is not empty", field="ids")
        if name in seen:
            raise InvalidInputError(f"id {name!r} occurs twice in one call; give each once", field="ids")
        seen.add(name)


def checked_vectors(vectors: npt.NDArray[np.floating], metric: Metric, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Give vectors [N, D] as float32, of unit length for the cosine; raise `InvalidInputError` for the first bad one.

    `names` has what to call each in a message.
    """
    with np.errstate(over="ignore"):
        rows = np.array(vectors, dtype=np.float32)
    if not np.isfinite(rows).all():
        bad = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise InvalidInputError(f"{names[bad]} is not finite", field="vectors")
    if metric != "cosine":
        return rows
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        raise InvalidInputError(f"{names[int(np.argmin(norms))]} is zero, which has no cosine", field="vectors")
    rows /= norms.astype(np.float32)
    return rows

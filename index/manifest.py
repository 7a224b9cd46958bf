"""What says which version of an index is current."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rankers.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the current version of an index holds.

    `version` counts builds and changes from 1; `built_at` is ISO 8601 in UTC; `parts` are the search structures there
    are, of ``bm25`` and ``dense``; `encoder` is the configured name of the model that embedded the documents, and None,
    as `dense_kind`, where nothing was embedded.
    """

    version: int
    built_at: str
    documents: int
    parts: tuple[str, ...]
    encoder: str | None = None
    dense_kind: str | None = None


def read_manifest(text: str, place: Path) -> Manifest:
    """Read what `write_manifest` wrote; raises `ConfigError`, which names `place`, if it is none."""
    try:
        content = json.loads(text)
        return Manifest(**{**content, "parts": tuple(content["parts"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{place} has no manifest but {text[:80]!r} ({error}); run: shortlist index build") from error


def write_manifest(manifest: Manifest) -> str:
    """Write a manifest as JSON."""
    return json.dumps(asdict(manifest))


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

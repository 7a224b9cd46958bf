"""The one small file that says which version of an index is current."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rankers.errors import ConfigError

MANIFEST_FILE = "MANIFEST.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the current version of an index holds.

    `version` counts builds from 1; `built_at` is ISO 8601 in UTC; `parts` are the search structures there are, of
    ``bm25`` and ``dense``; `encoder` is the configured name of the model that embedded the documents, and None, as
    `dense_kind`, where nothing was embedded.
    """

    version: int
    built_at: str
    documents: int
    parts: tuple[str, ...]
    encoder: str | None = None
    dense_kind: str | None = None


def read_manifest(root: Path) -> Manifest | None:
    """Read the manifest of an index.

    Parameters
    ----------
    root
        The index directory.

    Returns
    -------
    Manifest or None
        None if nothing has been built there.

    Raises
    ------
    ConfigError
        If the file is not a manifest.
    """
    path = root / MANIFEST_FILE
    try:
        content = json.loads(path.read_text())
        return Manifest(**{**content, "parts": tuple(content["parts"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not a manifest ({error}); remove it and run: shortlist index build") from error


def publish_manifest(root: Path, manifest: Manifest) -> None:
    """Make a version current, by one atomic rename; a crash leaves either the old manifest or the new one."""
    staged = root / f".{MANIFEST_FILE}"
    staged.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    sync(staged)
    staged.replace(root / MANIFEST_FILE)
    sync(root)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

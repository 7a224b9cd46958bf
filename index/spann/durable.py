"""Files that have their name only once they are whole and on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.manifest import sync

PART_SUFFIX = ".part"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is there at the end is put at `path`, and an exception leaves `path` as it was."""
    part = path.with_name(path.name + PART_SUFFIX)
    yield part
    sync(part)
    part.replace(path)
    sync(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write a small file so that a crash leaves the old one or the new one."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")

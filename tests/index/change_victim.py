"""A process that changes documents of an index and says what was acknowledged, until it is killed or kills itself.

``python -m tests.index.change_victim ROOT SEED STEP``, as `tests.index.spann.victim`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from index.directory import IndexDirectory
from index.spann.live import SpannIndex
from rankers.types import Document
from tests.index.spann.victim import DIMENSIONS, die_at, say, vector_of

if TYPE_CHECKING:
    from index.encoders import Encoder

BUILT = 120
NEW_IDS = 60
MERGE_ROWS = 30


class WordEncoder:
    """Gives each document the vector of its name and version, which are its only word."""

    dimensions = DIMENSIONS

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed documents."""
        return np.stack([vector_of(*named(text.strip())) for text in texts])


def built_ids() -> list[str]:
    """Ids the first build has, all in version 0."""
    return [f"d{i}" for i in range(BUILT)]


def word_of(name: str, version: int) -> str:
    """Give the only word of a document in a version."""
    return f"{name}v{version}"


def named(word: str) -> tuple[str, int]:
    """Give name and version of a word."""
    name, version = word.split("v")
    return name, int(version)


def document(name: str, version: int) -> Document:
    """Make a document as it is in a version."""
    return Document(name, word_of(name, version), metadata={"version": version})


def change_forever(directory: IndexDirectory, seed: int) -> None:
    """Add, delete and build; each is announced, and acknowledged when the call has returned."""
    encoder = cast("Encoder", WordEncoder())
    choose = random.Random(seed)
    number = seed * 1_000_000
    while True:
        number += 1
        kind = choose.choices(["put", "delete", "build"], [10, 6, 1])[0]
        ids = [f"d{i}" for i in choose.sample(range(BUILT + NEW_IDS), choose.choice([1, 3, 20]))]
        say(kind=kind, ids=ids, number=number)
        if kind == "put":
            directory.change([document(name, number) for name in ids], encoder=encoder, encoder_name="words")
        elif kind == "delete":
            directory.change(deleted=ids)
        else:
            directory.build(encoder=encoder, encoder_name="words", dense_kind="spann")
        say(kind="ok", number=number)


def main(root: Path, seed: int, step: int) -> None:
    """Build the index if there is none, and change it."""
    setattr(SpannIndex, "open", partial(SpannIndex.open, merge_rows=MERGE_ROWS))  # noqa: B010 - of a class
    say(kind="ready")
    directory = IndexDirectory(root)
    if step:
        die_at(step)
    if directory.current() is None:
        directory.corpus.append(document(name, 0) for name in built_ids())
        encoder = cast("Encoder", WordEncoder())
        directory.build(encoder=encoder, encoder_name="words", dense_kind="spann")
    say(kind="built")
    say(kind="open")
    change_forever(directory, seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

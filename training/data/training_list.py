"""A query, candidates and how good each is: what every trainer of this package reads."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankers.errors import InvalidInputError
from rankers.types import Document, Query


@dataclass(frozen=True, slots=True)
class TrainingList:
    """Candidates of one query in the order in which a first stage found them, and how good each is.

    `targets[i]` belongs to `documents[i]`: greater is better, equal ones are not to be told apart. They are grades of
    qrels, scores of a teacher, or minus the ranks of an order. `source` says which, for the model card, such as
    ``qrels:scifact/train``.
    """

    query: Query
    documents: tuple[Document, ...]
    targets: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        if len(self.documents) != len(self.targets) or len(self.documents) < 2:
            raise InvalidInputError(
                f"the list of query {self.query.id!r} has {len(self.documents)} documents and {len(self.targets)} "
                "targets; give at least two documents and one target for each"
            )
        if not all(map(math.isfinite, self.targets)):
            raise InvalidInputError(f"a target of query {self.query.id!r} is not finite")
        if len({document.id for document in self.documents}) < len(self.documents):
            raise InvalidInputError(f"a document occurs twice in the list of query {self.query.id!r}")


def write_lists(path: Path, lists: Iterable[TrainingList]) -> int:
    """Write lists as JSON lines; the file appears whole or not at all.

    Parameters
    ----------
    path
        Replaced if it exists.
    lists
        May be a generator.

    Returns
    -------
    int
        How many were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.incoming")
    count = 0
    with staged.open("w") as file:
        for item in lists:
            file.write(json.dumps(_to_json(item), ensure_ascii=False) + "\n")
            count += 1
    staged.replace(path)
    return count


def read_lists(path: Path) -> Iterator[TrainingList]:
    """Read what `write_lists` wrote.

    Parameters
    ----------
    path
        JSON lines: ``{"query": {"id", "text"}, "documents": [{"id", "title", "text"}], "targets": [...], "source"}``.

    Yields
    ------
    TrainingList
        In the order of the file.

    Raises
    ------
    InvalidInputError
        If there is no such file or a line is not a list; the message names the line.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InvalidInputError(f"no training lists at {path}; make some with: shortlist data lists") from None
    except OSError as error:
        raise InvalidInputError(f"cannot read training lists from {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, start=1):
            try:
                yield _from_json(json.loads(line))
            except (ValueError, KeyError, TypeError, InvalidInputError) as error:
                raise InvalidInputError(f"{path}, line {number}: not a training list: {error}") from error


def hash_lists(lists: Iterable[TrainingList]) -> str:
    """SHA-256 of the lists in their order, for the model card."""
    digest = hashlib.sha256()
    for item in lists:
        digest.update(json.dumps(_to_json(item), ensure_ascii=False, sort_keys=True).encode())
    return digest.hexdigest()


def _to_json(item: TrainingList) -> dict[str, Any]:
    return {
        "query": {"id": item.query.id, "text": item.query.text},
        "documents": [{"id": d.id, "title": d.title, "text": d.text} for d in item.documents],
        "targets": list(item.targets),
        "source": item.source,
    }


def _from_json(content: dict[str, Any]) -> TrainingList:
    texts = [
        content["query"]["text"],
        *(d[part] for d in content["documents"] for part in ("title", "text") if part in d),
    ]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("the texts of its query and documents are not all strings")
    return TrainingList(
        query=Query(content["query"]["id"], content["query"]["text"]),
        documents=tuple(Document(d["id"], d["text"], title=d.get("title", "")) for d in content["documents"]),
        targets=tuple(map(float, content["targets"])),
        source=content["source"],
    )

"""What it takes to add documents to an index that is built, against building it again.

``python -m benchmarks.ann_changes DATA``: DATA has ``minilm-vectors`` and collections in BEIR
layout. The index is built of stored vectors, so that only the added documents are embedded; what embedding all of them
would have cost is measured on a few and multiplied.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from index.directory import IndexDirectory
from index.encoders import Encoder
from index.spann.live import SpannIndex
from rankers.sources import resolve_model
from rankers.types import Document

COLLECTIONS = ("scifact", "nfcorpus", "trec-dl-2019-rerank", "cranfield")
SENTENCES = 3
EMBEDDED = 200
"""Documents whose embedding is timed."""


class StoredVectors:
    """Gives vectors in the order in which they are stored, as an encoder would."""

    def __init__(self, vectors: npt.NDArray[np.float16]) -> None:
        self.dimensions = int(vectors.shape[1])
        self._vectors = vectors
        self._given = 0

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Give the next vectors."""
        start = self._given
        self._given += len(texts)
        return self._vectors[start : self._given].astype(np.float32)


def main() -> None:
    """Build, change and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="minilm", help="The encoder of the documents that are added.")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--added", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    texts = _texts(given.data)
    encoder = Encoder(resolve_model(given.model, models_dir=Path("var/models")), device="cpu")
    vectors = np.load(given.data / "minilm-vectors" / "base.f16.npy", mmap_mode="r")[: given.documents]
    with tempfile.TemporaryDirectory() as folder:
        directory = IndexDirectory(Path(folder) / "index")
        directory.corpus.append(Document(f"d{i}", next(texts)) for i in range(given.documents))
        stored = cast(Encoder, StoredVectors(vectors))
        with _timed("build: words and vectors, without embedding"):
            directory.build(encoder=stored, encoder_name="minilm", dense_kind="spann")
        some = [next(texts) for _ in range(EMBEDDED)]
        started = time.perf_counter()
        encoder.encode_documents(some)
        each = (time.perf_counter() - started) / EMBEDDED
        print(f"embedding {given.documents:,} documents, from {EMBEDDED}: {each * given.documents:,.0f} s")
        print(f"of these, embedding {given.added} documents: {each * given.added:.2f} s")
        for number in range(given.rounds):
            added = [Document(f"n{number}-{i}", next(texts)) for i in range(given.added)]
            with _timed(f"add {given.added} documents"):
                directory.change(added, encoder=encoder, encoder_name="minilm")
            with _timed(f"delete {given.added} documents"):
                directory.change(deleted=[f"d{i}" for i in range(given.added * number, given.added * (number + 1))])
        with _timed("open the new version, as a service does"):
            words, dense = directory.open_bm25(), directory.open_dense()
        assert isinstance(dense, SpannIndex)
        if not len(words) == len(dense) == given.documents:
            raise SystemExit(f"{len(words)} documents by words and {len(dense)} by vectors")


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started, used = time.perf_counter(), time.process_time()
    yield
    print(f"{what}: {time.perf_counter() - started:.2f} s, {time.process_time() - used:.2f} s of CPU", flush=True)


def _texts(data: Path) -> Iterator[str]:
    sentences = [
        sentence.strip()
        for name in COLLECTIONS
        for line in next((data / name).rglob("corpus.jsonl")).open()
        for sentence in json.loads(line)["text"].split(". ")
        if len(sentence) > 20
    ]
    choose: Callable[[list[str], int], list[str]] = random.Random(0).sample
    while True:
        yield ". ".join(choose(sentences, SENTENCES))


if __name__ == "__main__":
    main()

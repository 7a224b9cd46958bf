"""A small collection with judgements for training and for testing, and pipelines over it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rankers.types import Document, Query
from training.data.training_list import TrainingList

TOPICS = ("fox", "dog", "cat", "ship", "tax", "tree")
DOCUMENTS = [
    Document(f"{topic}-{i}", f"text number {i} about the {topic} and {i} other things that nobody asks for")
    for topic in TOPICS
    for i in range(1, 6)
]
QUERIES = {topic: Query(topic, f"where does a {topic} come from") for topic in TOPICS}
TRAIN = {
    "fox": {"fox-5": 2, "fox-1": 1, "ship-1": 0},
    "dog": {"dog-3": 1, "tree-5": 1},
    "cat": {"cat-2": 1},
}
TEST = {"ship": {"ship-1": 1, "ship-2": 0}, "tax": {"tax-4": 1}}
CONFIG = """
default: bm25
models_dir: {models_dir}
pipelines:
  bm25: {{retriever: {{kind: bm25}}}}
  dense: {{retriever: {{kind: dense}}}}
  hosted:
    stages:
      - kind: listwise
        model: hosted
        depth: 10
        reader: generate
        strategy: {{kind: single}}
        server: {{kind: chat, url: "{url}", model: hosted}}
"""


def write_collection(
    folder: Path,
    documents: Sequence[Document] = DOCUMENTS,
    queries: Sequence[Query] = tuple(QUERIES.values()),
    qrels: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
) -> Path:
    """Write a collection in BEIR layout; `qrels` by split."""
    (folder / "qrels").mkdir(parents=True)
    records = [{"_id": d.id, "title": d.title, "text": d.text} for d in documents]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": q.id, "text": q.text}) + "\n" for q in queries))
    for split, judged in (qrels if qrels is not None else {"train": TRAIN, "test": TEST}).items():
        rows = [f"{q}\t{d}\t{grade}\n" for q, grades in judged.items() for d, grade in grades.items()]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def write_config(folder: Path, *, models_dir: Path, url: str = "http://127.0.0.1:1/v1") -> Path:
    """Write a ``shortlist.yaml``."""
    path = folder / "shortlist.yaml"
    path.write_text(CONFIG.format(models_dir=models_dir.resolve(), url=url))
    return path


def make_list(query: str, *texts: str, targets: Sequence[float] = (), source: str = "test") -> TrainingList:
    """Give a list; ids are the texts, and without targets the first document is the best."""
    documents = tuple(Document(text, text) for text in texts)
    values = tuple(targets) or tuple(-float(i) for i in range(len(texts)))
    return TrainingList(Query(query, query), documents, values, source)

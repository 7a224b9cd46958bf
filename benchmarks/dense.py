"""Dense retrieval against sentence-transformers and brute force: same model, same collection, same run.

    python -m benchmarks.dense path/to/scifact path/to/nfcorpus

Shortlist's `dense` pipeline (encoder, FAISS flat, corpus look-up) and the plainest thing that could work: encode with
sentence-transformers, multiply all query vectors with all document vectors, sort. Printed: nDCG@10 (linear gain) of
both, and seconds to embed and to search.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from sentence_transformers import SentenceTransformer, util

from index.directory import IndexDirectory
from index.encoders import Encoder
from index.retrievers import DenseRetriever
from rankers.sources import resolve_model
from training.evaluation.datasets import Dataset, load_dataset
from training.evaluation.measures import mean, measure_run
from training.evaluation.runs import Run

MEASURE = "nDCG@10"
DEPTH = 100
Timed = tuple[Run, float, float]


def shortlist(dataset: Dataset, model: str) -> Timed:
    """Run, seconds to embed and index, seconds to search."""
    assert dataset.documents is not None
    with tempfile.TemporaryDirectory() as folder:
        directory = IndexDirectory(Path(folder))
        directory.corpus.append(dataset.documents())
        encoder = Encoder(model)
        started = time.perf_counter()
        directory.build(encoder=encoder, encoder_name="minilm")
        built = time.perf_counter()
        retriever = DenseRetriever(directory.open_dense(), encoder, directory.corpus)
        rankings = retriever.retrieve(dataset.queries, DEPTH)
        searched = time.perf_counter()
        directory.corpus.close()
    run = {r.query.id: dict(zip(r.ids, r.scores, strict=True)) for r in rankings}
    return run, built - started, searched - built


def brute_force(dataset: Dataset, model: str) -> Timed:
    """The same with the library's own means."""
    assert dataset.documents is not None
    documents = list(dataset.documents())
    encoder = SentenceTransformer(model)
    started = time.perf_counter()
    vectors = encoder.encode_document([document.content for document in documents], convert_to_tensor=True)
    built = time.perf_counter()
    queries = encoder.encode_query([query.text for query in dataset.queries], convert_to_tensor=True)
    found = util.semantic_search(queries, vectors, top_k=DEPTH, score_function=util.cos_sim)
    searched = time.perf_counter()
    run = {
        query.id: {documents[int(hit["corpus_id"])].id: float(hit["score"]) for hit in hits}
        for query, hits in zip(dataset.queries, found, strict=True)
    }
    return run, built - started, searched - built


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="collections in BEIR layout")
    parser.add_argument("--model", default="minilm")
    arguments = parser.parse_args()
    model = resolve_model(arguments.model, models_dir=Path("var/models"))
    print("| collection | way | nDCG@10 (linear gain) | s to embed and index | s to search |")
    print("| --- | --- | --- | --- | --- |")
    for source in arguments.datasets:
        dataset = load_dataset(source)
        for name, way in {"shortlist": shortlist, "brute force": brute_force}.items():
            run, build_s, search_s = way(dataset, model)
            value = mean(measure_run(run, dataset.qrels, [MEASURE])[MEASURE])
            print(f"| {dataset.name} | {name} | {value:.4f} | {build_s:.1f} | {search_s:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""Setwise reranking against llm-rankers, on a CPU, with the same model and the same cut passages.

    pip install --no-deps llm-rankers && pip install openai tiktoken
    python -m benchmarks.peers path/to/trec-dl-2019-rerank --queries 2

Setwise heap sort with three children for the first ten places. The listwise ranker of llm-rankers 0.0.2 is left out: it
does not run with transformers 5.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.listwise import DEPTH, candidates, measured, seconds
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.setwise import SetwiseReader
from rankers.listwise.strategies.heap import Heap
from rankers.llm.transformers_engine import TransformersEngine
from rankers.sources import resolve_model
from rankers.types import Document, Ranking
from training.evaluation.datasets import read_qrels
from training.evaluation.measures import mean


def main() -> None:
    peer_types: Any = importlib.import_module("llmrankers.rankers")
    peer_setwise: Any = importlib.import_module("llmrankers.setwise")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--models-dir", type=Path, default=Path("var/models"))
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--passage-tokens", type=int, default=60)
    arguments = parser.parse_args()

    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    tokenizer = AutoTokenizer.from_pretrained(path)
    engine = TransformersEngine.load(path, device="cpu", dtype="float32")
    cut = [cut_passages(r, tokenizer, arguments.passage_tokens) for r in candidates(arguments.data, arguments.queries)]
    qrels = read_qrels(arguments.data / "qrels" / "test.tsv")
    wanted = {ranking.query.id: qrels[ranking.query.id] for ranking in cut}
    heap = ListwiseRanker(
        engine, strategy=Heap(children=3), reader=SetwiseReader(engine), template="setwise", passage_tokens=200
    )
    setwise = peer_setwise.SetwiseLlmRanker(
        path, path, "cpu", num_child=3, k=10, scoring="generation", method="heapsort"
    )

    def peer(ranker: Any) -> tuple[list[Ranking], float, int, int]:
        started = time.perf_counter()
        results = []
        windows = tokens = 0
        for ranking in cut:
            documents = {document.id: document for document in ranking.documents}
            found = ranker.rerank(
                ranking.query.text,
                [peer_types.SearchResult(docid=d.id, score=0.0, text=d.text) for d in ranking.documents],
            )
            results.append(Ranking.from_order(ranking.query, [documents[result.docid] for result in found]))
            windows, tokens = windows + ranker.total_compare, tokens + ranker.total_prompt_tokens
        return results, time.perf_counter() - started, windows, tokens

    def ours(ranker: ListwiseRanker) -> tuple[list[Ranking], float, int, int]:
        results: list[Ranking] = []
        taken = seconds(lambda: results.extend(ranker.rank(cut)))
        evidence = [result.evidence for result in results]
        return results, taken, sum(len(e.windows) for e in evidence), sum(e.tokens for e in evidence)

    print(f"{len(cut)} queries, BM25 top {DEPTH}, passages cut to {arguments.passage_tokens} tokens")
    print(
        "| way | s | windows | tokens read | tokens/s | nDCG@10 (linear gain) |\n| --- | --- | --- | --- | --- | --- |"
    )
    ways: dict[str, Callable[[], tuple[list[Ranking], float, int, int]]] = {
        "shortlist, setwise heap of 3": lambda: ours(heap),
        "llm-rankers, setwise heap of 3": lambda: peer(setwise),
    }
    for name, run in ways.items():
        results, taken, windows, tokens = run()
        quality = mean(measured(results, wanted))
        print(f"| {name} | {taken:.1f} | {windows} | {tokens:,} | {tokens / taken:,.0f} | {quality:.4f} |", flush=True)


def cut_passages(ranking: Ranking, tokenizer: Any, tokens: int) -> Ranking:
    """The same text for everybody: the first tokens of each passage."""
    documents = [
        Document(document.id, tokenizer.decode(tokenizer.encode(document.content, add_special_tokens=False)[:tokens]))
        for document in ranking.documents
    ]
    return Ranking.from_order(ranking.query, documents)


if __name__ == "__main__":
    main()

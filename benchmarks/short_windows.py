"""Strategies with windows of four to six passages, on a model that was trained on such windows.

    python -m benchmarks.short_windows path/to/trec-dl-2019-rerank --dtype bfloat16

The first 20 of the BM25 run of every judged query are ordered by `smollm2-135m-first` with each strategy; the first
named is what the others are compared with. A few queries at a time go through all strategies, and what came of them is
a line of `--out` for each: a run that is started again goes on after the last. A window that two strategies look at is
read once and counted for both. The report is over the queries that all strategies have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.listwise import MEASURE, Counted, candidates, measured
from rankers.listwise.labels import LabelSet
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.strategies.blocks import Blocks
from rankers.listwise.strategies.elimination import Elimination
from rankers.listwise.strategies.heap import Heap
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.strategies.tournament import Tournament
from rankers.listwise.windows import Strategy, Window, WindowOutcome
from rankers.llm.transformers_engine import TransformersEngine
from rankers.protocols import TokenIds
from rankers.sources import resolve_model
from training.evaluation.datasets import read_qrels
from training.evaluation.significance import bootstrap_interval, compare

DEPTH, TOGETHER = 20, 8
WAYS: dict[str, Strategy] = {
    "sliding 4/2": Sliding(size=4, stride=2),
    "sliding 4/2, 2 passes": Sliding(size=4, stride=2, passes=2),
    "sliding 4/2, 3 passes": Sliding(size=4, stride=2, passes=3),
    "blocks 4 x2, shuffled": Blocks(size=4, repeats=2, soft=True, shown="shuffled"),
    "blocks 4 x3, shuffled": Blocks(size=4, repeats=3, soft=True, shown="shuffled"),
    "blocks 4 x2, incoming": Blocks(size=4, repeats=2, soft=True),
    "blocks 4 x3, incoming": Blocks(size=4, repeats=3, soft=True),
    "tournament 5, best 1": Tournament(size=5, winners=1),
    "tournament 6, best 2": Tournament(size=6, winners=2),
    "elimination 4, drop 2": Elimination(size=4, drop=2),
    "heap, 3 children": Heap(children=3),
    "heap, 5 children": Heap(children=5),
}


class RememberingReader(FirstTokenReader):
    """Reads a window that it has read before from memory."""

    def __init__(self, model: TransformersEngine) -> None:
        super().__init__(model)
        self._known: dict[tuple[Window, tuple[int, ...]], WindowOutcome] = {}

    def read(self, prompts: Sequence[TokenIds], windows: Sequence[Window], *, labels: LabelSet) -> list[WindowOutcome]:
        keys = [(window, tuple(prompt)) for window, prompt in zip(windows, prompts, strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        outcomes = super().read([prompts[i] for i in new], [windows[i] for i in new], labels=labels) if new else []
        self._known.update((keys[i], outcome) for i, outcome in zip(new, outcomes, strict=True))
        return [self._known[key] for key in keys]


def run(arguments: argparse.Namespace, names: Sequence[str], rows: list[dict[str, Any]]) -> None:
    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    engine = TransformersEngine.load(path, device="cpu", dtype=arguments.dtype)
    rankings = [ranking.top(DEPTH) for ranking in candidates(arguments.data, arguments.queries)]
    reader = RememberingReader(engine)
    qrels = read_qrels(arguments.data / "qrels" / "test.tsv")
    for at in range(0, len(rankings), TOGETHER):
        group = rankings[at : at + TOGETHER]
        ids = [ranking.query.id for ranking in group]
        judged = {query_id: qrels[query_id] for query_id in ids}
        for name in names:
            if any(row["strategy"] == name and set(ids) <= row["values"].keys() for row in rows):
                continue
            counted = Counted(WAYS[name])
            ranker = ListwiseRanker(
                engine,
                template="first_small",
                strategy=counted,
                reader=reader,
                passage_tokens=arguments.passage_tokens,
            )
            results = ranker.rank(group)
            row = {
                "strategy": name,
                "values": measured(results, judged),
                "first stage": measured(group, judged),
                "windows": sum(len(result.evidence.windows) for result in results),
                "rounds": counted.rounds,
                "tokens": sum(result.evidence.tokens for result in results),
            }
            rows.append(row)
            with arguments.out.open("a") as out:
                print(json.dumps(row), file=out)
            print(at, name, flush=True)


def report(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Print one line per strategy; windows, depth and tokens are means over queries."""
    # A group of queries is known by its ids, as strategies may have come to different ends.
    groups = [{tuple(row["values"]) for row in rows if row["strategy"] == name} for name in names]
    common = set.intersection(*groups)
    kept = {name: [r for r in rows if r["strategy"] == name and tuple(r["values"]) in common] for name in names}
    queries = sum(map(len, common))
    print(f"\n{queries} queries, first {DEPTH} of BM25; {MEASURE} with linear gain")
    print(f"| strategy | windows | depth | tokens | {MEASURE} | - {names[0]} | p |")
    print(f"|{' --- |' * 7}")
    base = _values(kept[names[0]], "values")
    first = _values(kept[names[0]], "first stage")
    print(f"| BM25 | | | | {_quality(first, base)} |")
    for name in names:
        windows, rounds, tokens = (
            sum(row[key] for row in kept[name]) / queries for key in ("windows", "rounds", "tokens")
        )
        quality = _quality(_values(kept[name], "values"), base)
        print(f"| {name} | {windows:.1f} | {rounds:.1f} | {tokens:,.0f} | {quality} |")


def _values(rows: Sequence[dict[str, Any]], key: str) -> dict[str, float]:
    return {query_id: value for row in rows for query_id, value in row[key].items()}


def _quality(values: dict[str, float], base: dict[str, float]) -> str:
    mean, compared = bootstrap_interval([values[query_id] for query_id in base]), compare(values, base)
    between = compared.difference
    return (
        f"{mean.mean:.4f} [{mean.low:.3f}, {mean.high:.3f}] "
        f"| {between.mean:+.4f} [{between.low:+.3f}, {between.high:+.3f}] | {compared.p_value:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the collection, in BEIR layout with runs/bm25.top100.trec")
    parser.add_argument("--model", default="smollm2-135m-first")
    parser.add_argument("--models-dir", type=Path, default=Path("var/models"))
    parser.add_argument("--queries", type=int, default=43)
    parser.add_argument("--passage-tokens", type=int, default=56)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=Path("var/short-windows.jsonl"), help="what came of each group")
    parser.add_argument("--only", nargs="*", choices=list(WAYS), help="names of strategies")
    arguments = parser.parse_args()
    names = arguments.only or list(WAYS)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in arguments.out.open()] if arguments.out.exists() else []
    run(arguments, names, rows)
    report(rows, names)


if __name__ == "__main__":
    main()

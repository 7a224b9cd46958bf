"""One token against a generated permutation: same model, same prompts, same run.

    python -m benchmarks.first_token path/to/trec-dl-2019-rerank --queries 10 --passage-tokens 60 100

Three ways to read the same windows (the BM25 top 20 of each query, one window each), in turn, `--repeats` times:

- shortlist: all windows through the engine; last position, identifier rows only, several windows a forward pass
- full logits: a plain loop, one window at a time, the whole vocabulary at every position
- generate: a plain loop, one window at a time, `model.generate` for a whole permutation

The loops get the very token ids the engine got. Printed: seconds, windows and prompt tokens per second, and ratios of
medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from index.sources import read_beir_queries, read_documents
from rankers.listwise.ranker import ListwiseRanker
from rankers.llm.transformers_engine import TransformersEngine
from rankers.protocols import TokenIds
from rankers.sources import resolve_model
from rankers.types import Ranking
from training.evaluation.runs import RunRetriever, read_run

DEPTH = 20


class RecordingEngine(TransformersEngine):
    """Keeps the prompts it was given, so that others can be timed on them."""

    prompts: tuple[TokenIds, ...] = ()

    def next_token_logits(self, prompts, candidates):  # type: ignore[no-untyped-def]
        self.prompts = tuple(prompts)
        return super().next_token_logits(prompts, candidates)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def candidates(data: Path, count: int) -> list[Ranking]:
    """The BM25 top 20 of the first `count` judged queries."""
    run = read_run(data / "runs" / "bm25.top100.trec")
    queries = [query for query in read_beir_queries(data) if query.id in run][:count]
    return RunRetriever(run, read_documents(str(data))).retrieve(queries, DEPTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the collection, in BEIR layout with runs/bm25.top100.trec")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--models-dir", type=Path, default=Path("var/models"))
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--passage-tokens", type=int, nargs="+", default=[60, 100])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    engine = RecordingEngine.load(path, device="cpu", dtype="float32")
    plain: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    permutation = " > ".join(f"[{chr(ord('A') + i)}]" for i in range(DEPTH))
    answer_tokens = len(tokenizer(permutation, add_special_tokens=False).input_ids)
    rankings = candidates(arguments.data, arguments.queries)

    for passage_tokens in arguments.passage_tokens:
        ranker = ListwiseRanker(engine, passage_tokens=passage_tokens)
        ranker.rank(rankings[:1])  # warm-up
        ranked = ranker.rank(rankings)
        prompts = engine.prompts
        ways = {
            "shortlist": lambda r=ranker: r.rank(rankings),
            "full logits": lambda p=prompts: full_logits(plain, p),
            "generate": lambda p=prompts: generate(plain, p, answer_tokens),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.repeats):
            for name, work in ways.items():
                times[name].append(seconds(work))
        report(times, windows=len(prompts), tokens=sum(r.evidence.tokens for r in ranked), cut=passage_tokens)


@torch.inference_mode()
def full_logits(model: Any, prompts: Sequence[TokenIds]) -> None:
    for prompt in prompts:
        model(torch.tensor([prompt])).logits[0, -1].argsort(descending=True)


@torch.inference_mode()
def generate(model: Any, prompts: Sequence[TokenIds], answer_tokens: int) -> None:
    # The answer's length is forced: an untrained model may stop early or ramble, a trained one writes just this much.
    for prompt in prompts:
        ids = torch.tensor([prompt])
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=answer_tokens - 1,  # the prompt holds the first bracket
            max_new_tokens=answer_tokens - 1,
            pad_token_id=0,
        )


def report(times: dict[str, list[float]], *, windows: int, tokens: int, cut: int) -> None:
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"\npassages cut to {cut} tokens: {windows} windows of {DEPTH}, {tokens:,} prompt tokens")
    print("| way | s, median (min-max) | windows/s | prompt tokens/s | shortlist is faster by |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in times.items():
        ratio = statistics.median(v / ours for v, ours in zip(values, times["shortlist"], strict=True))
        print(
            f"| {name} | {median[name]:.1f} ({min(values):.1f}-{max(values):.1f}) | {windows / median[name]:.2f} "
            f"| {tokens / median[name]:,.0f} | {ratio:.2f}x |"
        )


if __name__ == "__main__":
    main()

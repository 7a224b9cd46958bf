"""The listwise engine: one token against generation, strategies against each other, memory.

    python -m benchmarks.listwise speed path/to/trec-dl-2019-rerank --queries 20 --passage-tokens 60 100
    python -m benchmarks.listwise strategies path/to/trec-dl-2019-rerank --queries 20 --passage-tokens 60
    python -m benchmarks.listwise windows path/to/trec-dl-2019-rerank --queries 2 --passage-tokens 28
    python -m benchmarks.listwise formats path/to/trec-dl-2019-rerank --queries 8
    python -m benchmarks.listwise memory path/to/trec-dl-2019-rerank

`speed` reads the windows of 20 that slide by 10 over the BM25 top 100, two queries after the other: with Shortlist, one
at a time and both together, with a plain transformers loop that reads one token from full logits, and with one that
generates the permutation, both one window at a time over the very token ids Shortlist read. The loops run with torch as
it is; the one that reads one token runs also with the float32 products that Shortlist chooses
where these differ (`rankers.llm.precision.use_avx512_products`). The ratio to expect is what the loop's own times
for prefill and decoding say; the floating-point rate is set against matrix products of the model's shapes, as torch
takes them by itself and as chosen. Every two queries are a line of `--out`; a run that is started again goes on after
the last.

`strategies` gives quality, tokens, windows, rounds (depth) and time of each strategy on the same candidates.

`windows` gives what strategies with small windows cost for 20, 50 and 100 candidates.

`formats` reads the window of the first 20 candidates of each query in float32 and bfloat16: CPU seconds, and
how far the orders agree.

`memory` gives the peak of resident memory with 1 to 64 queries in flight.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from index.sources import read_beir_queries, read_documents
from rankers.consistency import kendall_tau
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.generate import GenerateReader
from rankers.listwise.readers.grades import GradesReader
from rankers.listwise.readers.setwise import SetwiseReader
from rankers.listwise.strategies.blocks import Blocks
from rankers.listwise.strategies.elimination import Elimination
from rankers.listwise.strategies.groupwise import Groupwise
from rankers.listwise.strategies.heap import Heap
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.strategies.tournament import Tournament
from rankers.listwise.windows import Plan, Strategy
from rankers.llm.transformers_engine import TransformersEngine
from rankers.protocols import TokenIds
from rankers.sources import resolve_model
from rankers.types import Ranking
from training.evaluation.datasets import read_qrels
from training.evaluation.measures import mean, measure_run
from training.evaluation.memory import peak_memory_mib, reset_peak_memory
from training.evaluation.runs import RunRetriever, read_run
from training.evaluation.significance import compare

DEPTH, LABELS, TOGETHER = 100, 20, 2
MEASURE = "nDCG@10"
CHOSEN = "chosen products"
WAYS = ("together", "shortlist", f"full logits, {CHOSEN}", "full logits", "generate")


class RecordingEngine(TransformersEngine):
    """Keeps the prompts it was given, so that others can be timed on them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.prompts: list[TokenIds] = []
        super().__init__(*args, **options)

    def next_token_logits(self, prompts, candidates):  # type: ignore[no-untyped-def]
        self.prompts.extend(prompts)
        return super().next_token_logits(prompts, candidates)


class Counted:
    """A strategy that counts its rounds: how many times windows are read one after the other."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.needs, self.window_size = strategy.needs, strategy.window_size
        self.rounds = 0

    def plan(self, count: int) -> Plan:
        plan = self._strategy.plan(count)
        try:
            windows = next(plan)
            while True:
                self.rounds += 1
                outcomes = yield windows
                windows = plan.send(outcomes)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def candidates(data: Path, count: int) -> list[Ranking]:
    """The BM25 top 100 of the first `count` judged queries."""
    run = read_run(data / "runs" / "bm25.top100.trec")
    queries = [query for query in read_beir_queries(data) if query.id in run][:count]
    return RunRetriever(run, read_documents(str(data))).retrieve(queries, DEPTH)


def seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


@torch.inference_mode()
def full_logits(model: Any, prompts: Sequence[TokenIds]) -> None:
    for prompt in prompts:
        model(torch.tensor([prompt])).logits[0, -1].argsort(descending=True)


@torch.inference_mode()
def generate(model: Any, prompts: Sequence[TokenIds], tokens: int) -> None:
    # The answer's length is forced: an untrained model may stop early or ramble, a trained one writes just this much.
    for prompt in prompts:
        ids = torch.tensor([prompt])
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )


def speed(arguments: argparse.Namespace) -> None:
    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    engine = RecordingEngine.load(path, device="cpu", dtype="float32")
    plain: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    permutation = " > ".join(f"[{chr(ord('A') + i)}]" for i in range(LABELS))
    answer_tokens = len(tokenizer(permutation, add_special_tokens=False).input_ids) - 1  # the prompt has the first [
    rankings = candidates(arguments.data, arguments.queries)
    groups = [rankings[at : at + TOGETHER] for at in range(0, len(rankings), TOGETHER)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in arguments.out.open()] if arguments.out.exists() else []
    for cut in arguments.passage_tokens:
        known = {tuple(row["queries"]) for row in done if row["cut"] == cut}
        ranker = ListwiseRanker(engine, passage_tokens=cut)
        waiting = [group for group in groups if tuple(ranking.query.id for ranking in group) not in known]
        if waiting:
            ranker.rank([rankings[0].top(LABELS)])  # warm-up
        for group in waiting[: arguments.at_most]:
            row = {"cut": cut, **measure_group(group, ranker, engine, plain, answer_tokens)}
            done.append(row)
            with arguments.out.open("a") as out:
                print(json.dumps(row), file=out)
            print(cut, {name: round(value, 1) for name, value in row["seconds"].items()}, flush=True)
        report([row for row in done if row["cut"] == cut], plain, cut=cut)


def measure_group(
    group: Sequence[Ranking], ranker: ListwiseRanker, engine: RecordingEngine, plain: Any, answer_tokens: int
) -> dict[str, Any]:
    """Time every way on the same windows, one after the other; `products` are the linear layers alone."""
    taken: dict[str, float] = defaultdict(float)
    lengths: list[int] = []
    for ranking in group:
        engine.prompts.clear()
        taken["shortlist"] += seconds(ranker.rank, [ranking])
        prompts = list(engine.prompts)
        lengths += map(len, prompts)
        if torch.get_float32_matmul_precision() != "highest":
            taken[f"products, {CHOSEN}"] += matrix_seconds(plain, len(prompts[0])) * len(prompts)
            taken[f"full logits, {CHOSEN}"] += seconds(full_logits, plain, prompts)
        with torch_by_itself():
            taken["products"] += matrix_seconds(plain, len(prompts[0])) * len(prompts)
            taken["full logits"] += seconds(full_logits, plain, prompts)
            taken["generate"] += seconds(generate, plain, prompts, answer_tokens)
            taken["generate 1 token"] += seconds(generate, plain, prompts[:2], 1) / 2 * len(prompts)
    taken["together"] = seconds(ranker.rank, group)
    return {"queries": [ranking.query.id for ranking in group], "lengths": lengths, "seconds": taken}


@contextmanager
def torch_by_itself() -> Iterator[None]:
    """Take back which float32 products were chosen, for a while."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)


def work(model: Any, lengths: Sequence[int]) -> tuple[float, float]:
    """Floating-point operations of prefills: in linear layers, and in causal attention."""
    config = model.config
    heads = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    weights = sum(m.weight.numel() for m in model.base_model.modules() if isinstance(m, torch.nn.Linear))
    linear = sum(2.0 * weights * length for length in lengths)
    return linear, sum(2.0 * length**2 * heads * config.num_hidden_layers for length in lengths)


@torch.inference_mode()
def matrix_seconds(model: Any, rows: int) -> float:
    """Seconds of every linear layer of a model, one after the other, on `rows` rows; nothing else."""
    layers = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {layer.in_features: torch.randn(rows, layer.in_features) for layer in layers}
    return seconds(lambda: [layer(inputs[layer.in_features]) for layer in layers])


def report(rows: Sequence[dict[str, Any]], plain: Any, *, cut: int) -> None:
    if not rows:
        return
    total = {name: sum(row["seconds"][name] for row in rows) for name in rows[0]["seconds"]}
    lengths = [length for row in rows for length in row["lengths"]]
    queries = sum(len(row["queries"]) for row in rows)
    print(f"\npassages cut to {cut} tokens: {queries} queries, {len(lengths)} windows, {sum(lengths):,} prompt tokens")
    print("| way | s | prompt tokens/s | one query at a time is faster by | together is faster by |")
    print("| --- | --- | --- | --- | --- |")
    for name in (name for name in WAYS if name in total):
        alone, together = (total[name] / total[base] for base in ("shortlist", "together"))
        print(f"| {name} | {total[name]:.1f} | {sum(lengths) / total[name]:,.0f} | {alone:.2f}x | {together:.2f}x |")
    for name in (name for name in WAYS[2:] if name in total):
        ratios = sorted(row["seconds"][name] / row["seconds"]["shortlist"] for row in rows)
        print(f"{name} over shortlist, by group: {ratios[0]:.2f}x to {ratios[-1]:.2f}x, median {median(ratios):.2f}x")
    print(f"expected from the loop's own prefill and decoding: {total['generate'] / total['generate 1 token']:.2f}x")
    linear, attention = work(plain, lengths)
    for name in ("shortlist", "together"):
        rate = (linear + attention) / total[name]
        print(f"{name}: {rate / 1e9:.0f} GFLOP/s")
        for kind in (kind for kind in ("products", f"products, {CHOSEN}") if kind in total):
            products = linear / total[kind]
            print(f"  float32 {kind} of the same shapes {products / 1e9:.0f}: {rate / products:.0%}")


def strategies(arguments: argparse.Namespace) -> None:
    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    engine = TransformersEngine.load(path, device="cpu", dtype="float32")
    generated = GenerateReader(engine, answer_prefix="[")
    ways: dict[str, tuple[Strategy, dict[str, Any]]] = {
        "sliding 20/10": (Sliding(), {}),
        "tournament 20, best 2": (Tournament(), {}),
        "tournament 20, best 10": (Tournament(winners=10), {}),
        "blocks 20 x2, soft": (Blocks(repeats=2, soft=True), {}),
        "blocks 20 x2": (Blocks(repeats=2), {}),
        "blocks 20 x2, shuffled": (Blocks(repeats=2, shown="shuffled"), {}),
        "blocks 20 x4": (Blocks(repeats=4), {}),
        "setwise heap, 19 children": (Heap(children=19), {"reader": SetwiseReader(engine), "template": "setwise"}),
        "sliding 20/10, score line": (Sliding(), {"template": "insert_rank"}),
        "sliding 20/10, 3 passes": (Sliding(passes=3), {}),
        "sliding 20/10, generated": (Sliding(), {"reader": generated}),
    }
    rankings = candidates(arguments.data, arguments.queries)
    wanted = {ranking.query.id for ranking in rankings}
    qrels = {
        query: judged for query, judged in read_qrels(arguments.data / "qrels" / "test.tsv").items() if query in wanted
    }
    first = measured(rankings, qrels)
    print(f"{len(rankings)} queries, BM25 top {DEPTH}, passages cut to {arguments.passage_tokens[0]} tokens")
    print(f"| strategy | {MEASURE} (linear gain) | - first (p) | windows | rounds | read | written | s | queries/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(f"| BM25 | {mean(first):.4f} | | | | | | | |")
    base: dict[str, float] = {}
    for name, (strategy, options) in ways.items():
        if arguments.only and name not in arguments.only:
            continue
        counted = Counted(strategy)
        ranker = ListwiseRanker(engine, strategy=counted, passage_tokens=arguments.passage_tokens[0], **options)
        results: list[Ranking] = []
        taken = seconds(lambda: results.extend(ranker.rank(rankings)))  # noqa: B023
        values = measured(results, qrels)
        base = base or values
        difference = mean(values) - mean(base)
        windows = sum(len(result.evidence.windows) for result in results)
        read = sum(result.evidence.tokens for result in results)
        written = sum(result.evidence.generated_tokens for result in results)
        print(
            f"| {name} | {mean(values):.4f} | {difference:+.4f} ({compare(values, base).p_value:.2f}) "
            f"| {windows / len(results):.1f} | {counted.rounds / len(results):.1f} | {read:,} | {written:,} "
            f"| {taken:.0f} | {len(results) / taken:.3f} |",
            flush=True,
        )


def windows(arguments: argparse.Namespace) -> None:
    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    engine = TransformersEngine.load(path, device="cpu", dtype=arguments.dtype)
    ways: dict[str, tuple[Strategy, dict[str, Any]]] = {
        "sliding, size 20, stride 10": (Sliding(), {}),
        "sliding, size 5, stride 2": (Sliding(size=5, stride=2), {}),
        "tournament, size 5, winners 1": (Tournament(size=5, winners=1), {}),
        "tournament, size 5, winners 2": (Tournament(size=5), {}),
        "blocks, size 5, repeats 2": (Blocks(size=5, repeats=2, soft=True), {}),
        "blocks, size 5, repeats 4": (Blocks(size=5, soft=True), {}),
        "heap, children 4": (Heap(children=4), {"reader": SetwiseReader(engine)}),
        "elimination, size 5, drop 2": (Elimination(size=5, drop=2), {}),
        "groupwise, size 5": (Groupwise(size=5), {"reader": GradesReader(engine), "template": "group_grades"}),
    }
    rankings = candidates(arguments.data, arguments.queries)
    print(f"{len(rankings)} queries, passages cut to {arguments.passage_tokens[0]} tokens; windows, depth, tokens read")
    counts = (20, 50, 100)
    print(f"| strategy | {' | '.join(map(str, counts))} |\n|{' --- |' * (len(counts) + 1)}")
    for name, (strategy, options) in ways.items():
        if arguments.only and name not in arguments.only:
            continue
        cells = []
        for count in counts:
            counted = Counted(strategy)
            options = {"template": "first_small", **options}
            ranker = ListwiseRanker(engine, strategy=counted, passage_tokens=arguments.passage_tokens[0], **options)
            found = [result.evidence for result in ranker.rank([ranking.top(count) for ranking in rankings])]
            written = sum(evidence.generated_tokens for evidence in found) / len(found)
            cells.append(
                f"{sum(len(evidence.windows) for evidence in found) / len(found):.0f}, "
                f"{counted.rounds / len(found):.0f}, {sum(evidence.tokens for evidence in found) / len(found):,.0f}"
                + (f" + {written:,.0f} written" if written else "")
            )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def formats(arguments: argparse.Namespace) -> None:
    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    rankings = [ranking.top(LABELS) for ranking in candidates(arguments.data, arguments.queries)]
    print(f"{len(rankings)} windows of {LABELS}, passages cut to {arguments.passage_tokens[0]} tokens")
    print("| format | prompt tokens per CPU second | Kendall's tau, mean (least) | first 10 in common, mean (least) |")
    print("| --- | --- | --- | --- |")
    base: list[Ranking] = []
    for name, dtype in (("float32, torch by itself", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")):
        engine = TransformersEngine.load(path, device="cpu", dtype=dtype)
        ranker = ListwiseRanker(engine, template=arguments.template, passage_tokens=arguments.passage_tokens[0])
        with torch_by_itself() if "itself" in name else nullcontext():
            ranker.rank(rankings[:1])  # warm-up
            found: list[Ranking] = []
            taken = []
            for ranking in rankings:
                started = time.process_time()
                found.extend(ranker.rank([ranking]))
                taken.append(time.process_time() - started)
        base = base or found
        taus = [kendall_tau(one.ids, other.ids) for one, other in zip(base, found, strict=True)]
        common = [len({*one.ids[:10]} & {*other.ids[:10]}) for one, other in zip(base, found, strict=True)]
        rates = [result.evidence.tokens / time_s for result, time_s in zip(found, taken, strict=True)]
        print(
            f"| {name} | {median(rates):,.0f} | {sum(taus) / len(taus):.3f} ({min(taus):.3f}) "
            f"| {sum(common) / len(common):.1f} ({min(common)}) |",
            flush=True,
        )


def measured(rankings: Sequence[Ranking], qrels: Any) -> dict[str, float]:
    # Ranks and not scores, so that ties are cut as they are ordered.
    run = {r.query.id: {item.document.id: -float(item.rank) for item in r.items} for r in rankings}
    return measure_run(run, qrels, [MEASURE])[MEASURE]


def memory(arguments: argparse.Namespace) -> None:
    path = resolve_model(arguments.model, models_dir=arguments.models_dir)
    ranker = ListwiseRanker(TransformersEngine.load(path, device="cpu", dtype="float32"), passage_tokens=20)
    rankings = [ranking.top(LABELS) for ranking in candidates(arguments.data, 43)] * 2
    ranker.rank(rankings[:1])
    print("| queries in flight | peak MiB | s |\n| --- | --- | --- |")
    for count in (1, 4, 16, 64):
        reset_peak_memory()
        taken = seconds(ranker.rank, rankings[:count])
        print(f"| {count} | {peak_memory_mib():,.0f} | {taken:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "strategies", "windows", "formats", "memory"])
    parser.add_argument("data", type=Path, help="the collection, in BEIR layout with runs/bm25.top100.trec")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--models-dir", type=Path, default=Path("var/models"))
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--passage-tokens", type=int, nargs="+", default=[60])
    parser.add_argument("--template", default="first", help="for `formats`")
    parser.add_argument("--dtype", default="auto", help="for `windows`")
    parser.add_argument("--out", type=Path, default=Path("var/listwise-speed.jsonl"), help="times, for `speed`")
    parser.add_argument("--at-most", type=int, help="pairs of queries to time before the report")
    parser.add_argument("--only", nargs="*", help="names of strategies")
    arguments = parser.parse_args()
    parts = {"speed": speed, "strategies": strategies, "windows": windows, "formats": formats, "memory": memory}
    parts[arguments.part](arguments)


if __name__ == "__main__":
    main()

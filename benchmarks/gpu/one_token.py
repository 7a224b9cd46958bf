"""One token against a generated permutation on a GPU, with random weights in the shapes of public models.

    python -m benchmarks.gpu.one_token --tokenizer FOLDER --shapes mistral-7b qwen3-0.6b --out results.json

Weights do not change the time, so none are needed. For each shape and number of windows in flight: seconds to read the
windows from one token, seconds to generate the permutations in one batch, the prefill's TFLOP/s, and that of a plain
bfloat16 matrix product on the same card (the ceiling). Results are written after every row; `--budget-s` stops in time.
`--shapes tiny --device cpu` checks the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rankers.llm.transformers_engine import TransformersEngine

WINDOW_TOKENS = 2500
"""About 20 passages of 100 tokens and the instructions."""
LABELS = 20
ANSWER_TOKENS = 79
"""`[A] > [B] > ...` for 20 labels."""

_QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "mistral-7b": {
        "model_type": "mistral", "vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": None,
    },
    "qwen3-0.6b": {
        **_QWEN3, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
    },
    "qwen3-4b": {
        **_QWEN3, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    },
    "qwen3-8b": {
        **_QWEN3, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    },
    "tiny": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip


def timed(work: Callable[[], object], device: str, *, repeats: int) -> float:
    """Least seconds of some runs, after one that is not counted."""
    best = float("inf")
    for i in range(repeats + 1):
        _synchronize(device)
        started = time.perf_counter()
        work()
        _synchronize(device)
        if i:
            best = min(best, time.perf_counter() - started)
    return best


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def matmul_ceiling(device: str, dtype: torch.dtype) -> float:
    """TFLOP/s of a square matrix product."""
    size = 8192 if device != "cpu" else 512
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, device, repeats=10) / 1e12


def measure(engine: TransformersEngine, network: Any, windows: int, *, device: str, repeats: int) -> dict[str, float]:
    """Time both ways to read `windows` windows."""
    vocabulary = network.config.vocab_size
    ids = torch.randint(100, min(vocabulary, 30000), (windows, WINDOW_TOKENS))
    prompts, labels = ids.tolist(), [list(range(100, 100 + LABELS))] * windows
    one = timed(lambda: engine.next_token_logits(prompts, labels), device, repeats=repeats)
    on_device = ids.to(device)

    @torch.inference_mode()
    def generate() -> object:
        return network.generate(
            on_device,
            attention_mask=torch.ones_like(on_device),
            do_sample=False,
            min_new_tokens=ANSWER_TOKENS,
            max_new_tokens=ANSWER_TOKENS,
            pad_token_id=0,
        )

    full = timed(generate, device, repeats=1)
    body = sum(p.numel() for p in network.base_model.parameters()) - network.get_input_embeddings().weight.numel()
    attention = network.config.num_hidden_layers * network.config.num_attention_heads * _head_size(network.config)
    flops = windows * WINDOW_TOKENS * (2 * body + 2 * WINDOW_TOKENS * attention)  # causal: half of 4 T per token
    return {"one_token_s": one, "generate_s": full, "ratio": full / one, "prefill_tflops": flops / one / 1e12}


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="any tokenizer folder; only to satisfy the engine")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["qwen3-0.6b", "mistral-7b"])
    parser.add_argument("--windows", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget-s", type=float, default=540.0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    started = time.perf_counter()
    dtype = torch.bfloat16
    ceiling = matmul_ceiling(arguments.device, dtype)
    rows: list[dict[str, object]] = []
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    for shape in arguments.shapes:
        config = AutoConfig.for_model(**SHAPES[shape], max_position_embeddings=32768)
        with torch.device(arguments.device):
            network: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
        engine = TransformersEngine(network.eval(), tokenizer, max_batch_tokens=65536)
        for windows in arguments.windows:
            if time.perf_counter() - started > arguments.budget_s:
                print("the time budget is spent")
                return
            row = measure(engine, network, windows, device=arguments.device, repeats=arguments.repeats)
            share = row["prefill_tflops"] / ceiling  # .6 is asked for at 64 windows
            rows.append({"shape": shape, "windows": windows, "ceiling_tflops": ceiling, "share": share, **row})
            print(json.dumps(rows[-1]), flush=True)
            arguments.out.write_text(json.dumps(rows, indent=2) + "\n")
        del network, engine


if __name__ == "__main__":
    main()

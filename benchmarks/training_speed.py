"""Tokens per second of listwise training, against the same model in a plain Trainer loop, in turns in one process.

    python -m benchmarks.training_speed LISTS --model var/models/smollm2-135m/package-0.1.2
    python -m benchmarks.training_speed PANELS --model ... --settings training/listwise/recipes/cpu-3.yaml --count 8

The plain loop pads a batch and computes logits everywhere, as fine-tuning scripts do; it has only the language-model
loss, while ours has the ranking loss too. Tokens are those of the lists, without padding. With `--settings` both read
the windows of a recipe, all queries of a window, in its precision (the plain loop by `bf16=True`), and the plain loop
learns from them prompt by prompt.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import Trainer, TrainingArguments

from rankers.listwise.prompt import PromptBuilder
from rankers.listwise.template import load_template
from training.data.training_list import read_lists
from training.listwise.examples import Example, ExampleStream
from training.listwise.network import load_network
from training.listwise.settings import ListwiseSettings


class Rows(torch.utils.data.Dataset[Example]):
    """Examples as a dataset."""

    def __init__(self, examples: list[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


def padded(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Collate as fine-tuning scripts do: pad to the longest, learn the answer only."""
    rows = [(*example.prompt, *example.answer) for example in examples]
    longest = max(map(len, rows))
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    labels = [
        [-100] * len(e.prompt) + list(e.answer) + [-100] * (longest - len(row))
        for e, row in zip(examples, rows, strict=True)
    ]
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def time_plain(model: Any, examples: list[Example], batch: int, *, bf16: bool) -> float:
    """Seconds of one epoch."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
            bf16=bf16,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Rows(examples), data_collator=padded)
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started


def time_ours(network: Any, examples: list[Example], batch: int, *, bf16: bool) -> float:
    """Seconds of one epoch."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)
    network.train()
    device = next(network.parameters()).device.type
    started = time.perf_counter()
    for start in range(0, len(examples), batch):
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            losses = network(examples[start : start + batch])
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def main() -> None:
    """Run both in turns and print tokens per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lists", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--settings", type=Path)
    chosen = parser.parse_args()
    settings = ListwiseSettings(max_candidates=10, passage_tokens=40, noise=0, queries_per_list=1)
    if chosen.settings:
        settings = ListwiseSettings.model_validate(yaml.safe_load(chosen.settings.read_text()))
    bf16 = settings.precision == "bf16"
    network, tokenizer = load_network(chosen.model, settings)
    plain, _ = load_network(chosen.model, settings)
    plain.model.get_base_model().set_attn_implementation("sdpa")
    builder = PromptBuilder(load_template(settings.template), tokenizer, passage_tokens=settings.passage_tokens)
    lists = [item for item in read_lists(chosen.lists) if len(set(item.targets)) > 1]
    sizes = (settings.min_candidates, settings.max_candidates)
    stream = ExampleStream(lists, builder, tokenizer, sizes=sizes, queries=settings.queries_per_list, seed=0)
    windows = [stream[n] for n in range(chosen.count)]
    examples = [example for window in windows for example in window]
    batch = round(chosen.batch * len(examples) / len(windows))
    tokens = sum(len(example.prompt) + len(example.answer) for example in examples)
    rates: dict[str, list[float]] = {"shortlist": [], "Trainer": []}
    for turn in range(chosen.turns + 1):
        seconds = {
            "shortlist": time_ours(network, examples, batch, bf16=bf16),
            "Trainer": time_plain(plain.model, examples, batch, bf16=bf16),
        }
        for name, value in seconds.items():
            if turn:  # the first warms up
                rates[name].append(tokens / value)
                print(f"{name}: {tokens / value:,.0f} tokens/s")
    ratio = statistics.median(rates["shortlist"]) / statistics.median(rates["Trainer"])
    print(f"{tokens:,} tokens of {len(examples)} lists, {batch} a step: {ratio:.2f} times the plain loop")


if __name__ == "__main__":
    main()

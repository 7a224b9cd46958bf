"""Tiny language models with random weights, built from a configuration: real architectures in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast

from rankers.llm.transformers_engine import TransformersEngine

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>")
MERGES = [("A", "A"), ("t", "h"), ("th", "e"), ("Ġ", "the")]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = [*SPECIAL, *BYTES, *("".join(pair) for pair in MERGES)]
CONTEXT = 512


def wrap_tokenizer(backend: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    """Give a backend the interface of transformers."""
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)  # type: ignore[no-untyped-call]


def byte_tokenizer(*, chat_template: str | None = CHATML, thinking: bool = False) -> PreTrainedTokenizerFast:
    """Give a byte-level BPE tokenizer of 256 bytes and a few merges.

    With `thinking` it has an added token `<think>` that is not marked as special, as reasoning models have.
    """
    vocabulary = {token: i for i, token in enumerate(TOKENS)}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = wrap_tokenizer(backend, bos_token=SPECIAL[0], eos_token=SPECIAL[1])
    if thinking:
        tokenizer.add_tokens(["<think>"])
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_llama_config(**changes: Any) -> LlamaConfig:
    """Give the configuration of a two-layer Llama whose vocabulary is that of `byte_tokenizer`."""
    shape = {
        "vocab_size": len(TOKENS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
    }
    return LlamaConfig(**(shape | changes))


def random_network(config: PretrainedConfig) -> Any:
    """Give a causal model with seeded weights, large enough for logits to differ clearly."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return network.eval()


def tiny_engine(*, max_batch_tokens: int = 8192, **changes: Any) -> TransformersEngine:
    """Give an engine over a random Llama."""
    return TransformersEngine(
        random_network(tiny_llama_config(**changes)), byte_tokenizer(), max_batch_tokens=max_batch_tokens
    )


def plain_logits(network: Any, prompt: list[int], candidates: list[int]) -> Any:
    """Give what transformers itself says: one prompt, a whole forward pass, the last position."""
    with torch.inference_mode():
        return network(torch.tensor([prompt])).logits[0, -1, candidates].numpy()


def write_tiny_gguf(path: Path) -> None:
    """Write a two-layer Llama with seeded weights and the byte tokenizer as a GGUF file."""
    from gguf import GGUFWriter, TokenType

    config, key_heads = tiny_llama_config(), 2
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)

    random = np.random.default_rng(0)
    width, inner = config.hidden_size, config.intermediate_size
    keys = width // config.num_attention_heads * key_heads
    shapes = {"token_embd": (len(TOKENS), width), "output_norm": (width,)}
    for layer in range(config.num_hidden_layers):
        shapes |= {
            f"blk.{layer}.attn_norm": (width,),
            f"blk.{layer}.attn_q": (width, width),
            f"blk.{layer}.attn_k": (keys, width),
            f"blk.{layer}.attn_v": (keys, width),
            f"blk.{layer}.attn_output": (width, width),
            f"blk.{layer}.ffn_norm": (width,),
            f"blk.{layer}.ffn_gate": (inner, width),
            f"blk.{layer}.ffn_up": (inner, width),
            f"blk.{layer}.ffn_down": (width, inner),
        }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(scale=0.3, size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

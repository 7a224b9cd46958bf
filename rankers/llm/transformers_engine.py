"""Logits, likelihoods and text from any causal model that transformers can load, on CPU and CUDA.

Logits take one prefill and nothing else: the decoder body runs without a cache over packed prompts, and the output
matrix is read only at the last position and only in the rows that were asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankers.batching import CPU_PASS_TOKENS, token_batches
from rankers.errors import ConfigError, InvalidInputError
from rankers.llm.gguf import GGUF_SUFFIX, load_gguf
from rankers.llm.last_layer import last_layer_at
from rankers.llm.output_layer import OutputLayer
from rankers.llm.packing import PACKED, pack, packed_batches, packed_states
from rankers.llm.precision import choose_dtype, use_avx512_products
from rankers.llm.prompt_tokenizer import PromptTokenizer
from rankers.protocols import Generation, TokenIds

CPU_BATCH_TOKENS = 3072
"""A pass of 2,800 tokens was 12% faster than one of 8,192 with a 135M model: what a layer computes stays in cache."""
GPU_BATCH_TOKENS = 32_768
PROBE_START = "These are some words that two prompts share, enough of them that they are computed only once:"
PROBE_TEXTS = (" Paris is the capital of", " the order of the passages is, most relevant first, [")
PROBE_IDS = 64
"""Vocabulary entries compared when a model is loaded."""


class TransformersEngine:
    """A causal language model in this process.

    It is a `LanguageModel`, a `LikelihoodModel` and a `GenerativeModel` of `rankers.protocols`.

    Not safe for concurrent calls: one caller at a time. Build it with `load`.

    Parameters
    ----------
    network
        A ``PreTrainedModel`` with a language-model head, in evaluation mode.
    tokenizer
        Its ``PreTrainedTokenizerBase``.
    max_batch_tokens
        Bound on the tokens of one forward pass; a longer prompt passes alone. `CPU_BATCH_TOKENS` or `GPU_BATCH_TOKENS`
        when not given.

    Raises
    ------
    ConfigError
        If reading the model this way does not give the logits that its own forward pass gives.
    """

    def __init__(self, network: Any, tokenizer: Any, *, max_batch_tokens: int | None = None) -> None:
        on_cpu = network.device.type == "cpu"
        if max_batch_tokens is None:
            max_batch_tokens = CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS
        if max_batch_tokens < 1:
            raise ConfigError(f"max_batch_tokens is {max_batch_tokens}, must be at least 1")
        self._network = network
        self._text = PromptTokenizer(tokenizer)
        self._output = OutputLayer(network)
        self.max_batch_tokens = max_batch_tokens
        self._pass_tokens = CPU_PASS_TOKENS if on_cpu else None
        self.name = str(network.config.name_or_path)
        config = network.config.get_text_config()
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self._packs = False
        self._choose_layout()

    @classmethod
    def load(
        cls, model: str, *, device: str | None = None, dtype: str = "auto", max_batch_tokens: int | None = None
    ) -> Self:
        """Load a model.

        Parameters
        ----------
        model
            A folder, a hub name, or a ``.gguf`` file. Code that comes with a model is never run.
        device
            A torch device; CUDA where there is one, else the CPU.
        dtype
            ``float32``, ``bfloat16``, ``float16`` or ``auto`` (see `rankers.llm.precision.choose_dtype`).
            In float32 on a CPU, `rankers.llm.precision.use_avx512_products` is called.
        max_batch_tokens
            Bound on the tokens of one forward pass.

        Returns
        -------
        TransformersEngine
            Verified against the model's own forward pass.

        Raises
        ------
        ConfigError
            If it cannot be loaded, or not be read exactly, or the processor is slow in that format.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        chosen = choose_dtype(dtype, device)
        if torch.device(device).type == "cpu":
            use_avx512_products()
        if model.endswith(GGUF_SUFFIX):
            network, tokenizer = load_gguf(Path(model), dtype=chosen)
        else:
            try:
                tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
                network = AutoModelForCausalLM.from_pretrained(model, dtype=chosen, trust_remote_code=False)
            except (OSError, ValueError, KeyError) as error:
                raise ConfigError(f"cannot load {model!r} as a causal language model: {error}") from error
        return cls(network.to(device).eval(), tokenizer, max_batch_tokens=max_batch_tokens)

    def encode(self, text: str) -> list[int]:
        """Token ids of user text inside a prompt; special tokens written in it are plain characters."""
        return self._text.encode(text)

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:
        """Token ids of trusted template text; special tokens written in it are recognised."""
        return self._text.encode_template(text, at_start=at_start)

    def chat_text(self, system: str, user: str) -> str:
        """Write a conversation with the model's chat template, up to where the answer begins."""
        return self._text.chat_text(system, user)

    @torch.inference_mode()
    def next_token_logits(
        self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        """Logits of some tokens at the position after each prompt.

        Parameters
        ----------
        prompts
            Token ids, any mix of lengths, at least one token each.
        candidates
            For each prompt, the vocabulary entries to read.

        Returns
        -------
        list of ndarray
            float32 [len(candidates[i])] for each prompt: ``model(prompts[i]).logits[0, -1, candidates[i]]``.

        Raises
        ------
        InvalidInputError
            If a prompt is empty or longer than the model's context, a candidate is not in the vocabulary, or there
            are not as many candidate lists as prompts.
        """
        self._check(prompts, candidates)
        results: list[npt.NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(prompts)
        for batch in self._batches(prompts):
            hidden = self._tail_hidden([prompts[i] for i in batch], [1] * len(batch))  # [B, D]
            logits = self._output.logits(hidden, [candidates[i] for i in batch])
            for i, values in zip(batch, logits, strict=True):
                results[i] = values
        return results

    @torch.inference_mode()
    def continuation_log_probabilities(
        self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probability of every token of a continuation, given the prompt and the tokens before it.

        Parameters
        ----------
        prompts
            Token ids, at least one token each.
        continuations
            For each prompt, what follows it; at least one token each.

        Returns
        -------
        list of ndarray
            float32 [len(continuations[i])] for each prompt.

        Raises
        ------
        InvalidInputError
            If a prompt or continuation is empty, both are longer than the model's context, a token is not in the
            vocabulary, or there are not as many continuations as prompts.
        """
        self._check(prompts, continuations)
        # The last token is only predicted, so it is not read.
        texts = [[*prompt, *wanted[:-1]] for prompt, wanted in zip(prompts, continuations, strict=True)]
        for i, wanted in enumerate(continuations):
            if not len(wanted):
                raise InvalidInputError(f"continuation {i} is empty; it needs at least one token")
        self._check(texts, continuations)
        results: list[npt.NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(prompts)
        for batch in self._batches(texts):
            counts = [len(continuations[i]) for i in batch]
            hidden = self._tail_hidden([texts[i] for i in batch], counts)  # [sum of counts, D]
            wanted = [token for i in batch for token in continuations[i]]
            values = np.split(self._output.log_probabilities(hidden, wanted), np.cumsum(counts)[:-1])
            for i, part in zip(batch, values, strict=True):
                results[i] = part
        return results

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[TokenIds], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[Generation]:
        """Continue each prompt greedily.

        Parameters
        ----------
        prompts
            Token ids, any mix of lengths, at least one token each.
        max_new_tokens
            Budget for each.
        stop
            Strings that end the text.

        Returns
        -------
        list of Generation
            One per prompt.

        Raises
        ------
        InvalidInputError
            If a prompt is empty, or leaves no room for `max_new_tokens` in the model's context.
        """
        self._check(prompts, [()] * len(prompts), room=max_new_tokens)
        results: dict[int, Generation] = {}
        lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        for batch in token_batches(lengths, max_batch_tokens=self.max_batch_tokens, pass_tokens=None):
            results |= zip(batch, self._generate([prompts[i] for i in batch], max_new_tokens, stop), strict=True)
        return [results[i] for i in range(len(prompts))]

    def _generate(self, prompts: Sequence[TokenIds], max_new_tokens: int, stop: Sequence[str]) -> list[Generation]:
        # Padded on the left, so that what is written follows what is read.
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)  # [B, T]
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :] = torch.as_tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        device = self._network.device
        ends = self._text.end_ids | _as_set(self._network.generation_config.eos_token_id)
        written = self._network.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=0,
            **({"stop_strings": list(stop), "tokenizer": self._text.tokenizer} if stop else {}),
        )[:, longest:].tolist()
        return [self._generation(row, ends, stop) for row in written]

    def _generation(self, row: Sequence[int], ends: set[int], stop: Sequence[str]) -> Generation:
        """Cut what was written where it ended; rows that ended early are padded up to the longest."""
        end = next((i for i, token in enumerate(row) if token in ends), None)
        kept = list(row if end is None else row[:end])
        text = self._text.decode(kept)
        found = [at + len(mark) for mark in stop if (at := text.find(mark)) >= 0]
        if found:
            return Generation(text[: min(found)], len(kept), complete=True)
        return Generation(text, len(kept) + (end is not None), complete=end is not None)

    def _batches(self, prompts: Sequence[TokenIds]) -> list[list[int]]:
        if self._packs:
            return packed_batches(prompts, max_batch_tokens=self.max_batch_tokens)
        lengths = [len(prompt) for prompt in prompts]
        return token_batches(lengths, max_batch_tokens=self.max_batch_tokens, pass_tokens=self._pass_tokens)

    def _tail_hidden(self, prompts: Sequence[TokenIds], counts: Sequence[int]) -> torch.Tensor:
        """Give the final hidden states at the last `counts[i]` positions of each prompt, [sum of counts, D]."""
        return self._packed_hidden(prompts, counts) if self._packs else self._padded_hidden(prompts, counts)

    def _packed_hidden(self, prompts: Sequence[TokenIds], counts: Sequence[int]) -> torch.Tensor:
        packing = pack(prompts)
        with last_layer_at(self._network, packing.tails(counts)):
            return packed_states(self._network.base_model, packing, counts, tails=counts)

    def _padded_hidden(self, prompts: Sequence[TokenIds], counts: Sequence[int]) -> torch.Tensor:
        """Pad on the right, without a mask: causal attention never looks right, so nothing read depends on it."""
        ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)  # [B, T]
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.as_tensor(prompt)
        device = self._network.device
        hidden: torch.Tensor = self._network.base_model(ids.to(device), use_cache=False).last_hidden_state  # [B, T, D]
        tails = zip(hidden, prompts, counts, strict=True)
        return torch.cat([states[len(prompt) - count : len(prompt)] for states, prompt, count in tails])

    def _check(self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds], *, room: int = 0) -> None:
        if len(prompts) != len(candidates):
            raise InvalidInputError(f"{len(prompts)} prompts need as many candidate lists, got {len(candidates)}")
        for i, (prompt, wanted) in enumerate(zip(prompts, candidates, strict=True)):
            if not len(prompt):
                raise InvalidInputError(f"prompt {i} is empty; it needs at least one token")
            if self.context_tokens is not None and len(prompt) + room > self.context_tokens:
                writes = f" and may write {room}" if room else ""
                raise InvalidInputError(
                    f"prompt {i} has {len(prompt)} tokens{writes}, the context of {self.name} is "
                    f"{self.context_tokens}; show fewer or shorter passages at a time"
                )
            outside = [token for token in wanted if not 0 <= token < self._output.vocabulary]
            if outside:
                raise InvalidInputError(f"token {outside[0]} is not in the vocabulary of {self._output.vocabulary}")

    @torch.inference_mode()
    def _choose_layout(self) -> None:
        """Pack if this architecture can be read that way, else pad if it can, else refuse it.

        Each way is compared with the model's own forward pass: a prompt alone, and prompts that share a beginning.
        """
        start = self.encode_template(PROBE_START, at_start=True)
        prompts = [[*start, *self.encode_template(text)] for text in PROBE_TEXTS]
        probe = np.linspace(0, self._output.vocabulary - 1, PROBE_IDS).astype(int).tolist()
        expected = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self._network.device)
            expected.append(self._network(ids, use_cache=False).logits[0, -1, probe].float().cpu().numpy())
        own_attention = self._network.config._attn_implementation
        if own_attention == "sdpa":
            self._network.set_attn_implementation(PACKED)
            self._packs = True
            # An architecture with attention of its own may refuse in any way it likes; padding is exact too.
            with contextlib.suppress(Exception):
                self._compare(prompts, probe, expected)
                return
            self._packs = False
            self._network.set_attn_implementation(own_attention)
        self._compare(prompts, probe, expected)

    def _compare(
        self, prompts: Sequence[TokenIds], probe: Sequence[int], expected: Sequence[npt.NDArray[np.float32]]
    ) -> None:
        # Other kernels round differently.
        tolerance = 1e-4 if self._network.dtype == torch.float32 else 5e-2
        for size in (1, len(prompts)):
            read = self.next_token_logits(prompts[:size], [probe] * size)
            for ours, theirs in zip(read, expected[:size], strict=True):
                difference = float(np.abs(ours - theirs).max())
                allowed = tolerance * max(1.0, float(np.abs(theirs).max()))
                if not difference <= allowed:
                    raise ConfigError(
                        f"{self.name}: logits read at the last position differ from the model's own by "
                        f"{difference:.3g} (allowed {allowed:.3g}), so this architecture cannot be read exactly; use "
                        "another model"
                    )


def _as_set(ids: int | Sequence[int] | None) -> set[int]:
    if ids is None:
        return set()
    return {ids} if isinstance(ids, int) else set(ids)

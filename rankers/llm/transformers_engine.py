"""Next-token logits from any causal model that transformers can load, on CPU and CUDA.

One prefill per prompt and nothing else: the decoder body runs without a cache, and the output matrix is read only at
the last position and only in the rows that were asked for.
"""

from __future__ import annotations

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
from rankers.llm.output_layer import OutputLayer
from rankers.llm.precision import choose_dtype
from rankers.llm.prompt_tokenizer import PromptTokenizer
from rankers.protocols import TokenIds

PROBE_TEXTS = ("Paris is the capital of", "The order of the passages is [")
PROBE_IDS = 64
"""Vocabulary entries compared when a model is loaded."""


class TransformersEngine:
    """A causal language model in this process; a `rankers.protocols.LanguageModel`.

    Not safe for concurrent calls: one caller at a time. Build it with `load`.

    Parameters
    ----------
    network
        A ``PreTrainedModel`` with a language-model head, in evaluation mode.
    tokenizer
        Its ``PreTrainedTokenizerBase``.
    max_batch_tokens
        Bound on the padded tokens of one forward pass; a longer prompt passes alone.

    Raises
    ------
    ConfigError
        If reading the model this way does not give the logits that its own forward pass gives.
    """

    def __init__(self, network: Any, tokenizer: Any, *, max_batch_tokens: int = 8192) -> None:
        if max_batch_tokens < 1:
            raise ConfigError(f"max_batch_tokens is {max_batch_tokens}, must be at least 1")
        self._network = network
        self._text = PromptTokenizer(tokenizer)
        self._output = OutputLayer(network)
        self._max_batch_tokens = max_batch_tokens
        self._pass_tokens = CPU_PASS_TOKENS if network.device.type == "cpu" else None
        self.name = str(network.config.name_or_path)
        config = network.config.get_text_config()
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self._verify()

    @classmethod
    def load(cls, model: str, *, device: str | None = None, dtype: str = "auto", max_batch_tokens: int = 8192) -> Self:
        """Load a model.

        Parameters
        ----------
        model
            A folder, a hub name, or a ``.gguf`` file. Code that comes with a model is never run.
        device
            A torch device; CUDA where there is one, else the CPU.
        dtype
            ``float32``, ``bfloat16``, ``float16`` or ``auto`` (see `rankers.llm.precision.choose_dtype`).
        max_batch_tokens
            Bound on the padded tokens of one forward pass.

        Returns
        -------
        TransformersEngine
            Verified against the model's own forward pass.

        Raises
        ------
        ConfigError
            If it cannot be loaded, or not be read exactly.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        chosen = choose_dtype(dtype, device)
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
        lengths = [len(prompt) for prompt in prompts]
        for batch in token_batches(lengths, max_batch_tokens=self._max_batch_tokens, pass_tokens=self._pass_tokens):
            hidden = self._last_hidden([prompts[i] for i in batch])  # [B, D]
            logits = self._output.logits(hidden, [candidates[i] for i in batch])
            for i, values in zip(batch, logits, strict=True):
                results[i] = values
        return results

    def _last_hidden(self, prompts: Sequence[TokenIds]) -> torch.Tensor:
        """Give the final hidden state at the last position of each prompt, [B, D].

        Prompts are padded on the right without a mask: causal attention never looks right, so nothing that is read
        depends on the padding.
        """
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)  # [B, T]
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.as_tensor(prompt)
        device = self._network.device
        hidden: torch.Tensor = self._network.base_model(ids.to(device), use_cache=False).last_hidden_state  # [B, T, D]
        return hidden[torch.arange(len(prompts), device=device), (lengths - 1).to(device)]

    def _check(self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds]) -> None:
        if len(prompts) != len(candidates):
            raise InvalidInputError(f"{len(prompts)} prompts need as many candidate lists, got {len(candidates)}")
        for i, (prompt, wanted) in enumerate(zip(prompts, candidates, strict=True)):
            if not len(prompt):
                raise InvalidInputError(f"prompt {i} is empty; it needs at least one token")
            if self.context_tokens is not None and len(prompt) > self.context_tokens:
                raise InvalidInputError(
                    f"prompt {i} has {len(prompt)} tokens, the context of {self.name} is {self.context_tokens}; "
                    "show fewer or shorter passages at a time"
                )
            outside = [token for token in wanted if not 0 <= token < self._output.vocabulary]
            if outside:
                raise InvalidInputError(f"token {outside[0]} is not in the vocabulary of {self._output.vocabulary}")

    @torch.inference_mode()
    def _verify(self) -> None:
        """Compare with the model's own forward pass, once with a prompt alone and once with padding."""
        prompts = [self.encode_template(text, at_start=True) for text in PROBE_TEXTS]
        probe = np.linspace(0, self._output.vocabulary - 1, PROBE_IDS).astype(int).tolist()
        expected = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self._network.device)
            expected.append(self._network(ids, use_cache=False).logits[0, -1, probe].float().cpu().numpy())
        # Alone, only the rounding of the output differs; batches take other kernels and round the body differently.
        exact = self._network.dtype == torch.float32
        alone = self.next_token_logits(prompts[:1], [probe])
        self._compare(alone, expected[:1], tolerance=1e-4 if exact else 1e-2)
        self._compare(self.next_token_logits(prompts, [probe, probe]), expected, tolerance=1e-4 if exact else 5e-2)

    def _compare(
        self,
        read: Sequence[npt.NDArray[np.float32]],
        expected: Sequence[npt.NDArray[np.float32]],
        *,
        tolerance: float,
    ) -> None:
        for ours, theirs in zip(read, expected, strict=True):
            difference = float(np.abs(ours - theirs).max())
            allowed = tolerance * max(1.0, float(np.abs(theirs).max()))
            if not difference <= allowed:
                raise ConfigError(
                    f"{self.name}: logits read at the last position differ from the model's own by {difference:.3g} "
                    f"(allowed {allowed:.3g}), so this architecture cannot be read exactly; use another model"
                )

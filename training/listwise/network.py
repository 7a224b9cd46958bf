"""The network that is trained: a causal model read at the identifiers, with or without LoRA adapters."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankers.errors import ConfigError, MissingExtraError
from rankers.llm.output_layer import OutputLayer
from rankers.llm.packing import PACKED, pack, packed_states
from rankers.llm.precision import use_avx512_products
from rankers.llm.prompt_tokenizer import PromptTokenizer
from rankers.llm.transformers_engine import TransformersEngine
from rankers.llm.tree_attention import tree_masks
from rankers.shipped import ADAPTER_FILE, ADAPTER_FOLDER
from training.listwise.examples import Example
from training.listwise.losses import GRADED_LOSSES, LOSSES
from training.listwise.settings import ListwiseSettings

MAX_GRADE = 4.0
"""Targets of losses whose gain is 2^target are scaled to this range, the grades of the field."""
LEAST_SHARED_TOKENS = 40
"""The first words of a template are computed for each window, which keeps trees of prompts small; its passages once."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars of one pass: the sum that is minimised, and its two parts."""

    total: Tensor
    language_model: Tensor
    ranking: Tensor


class ModelTokenizer(PromptTokenizer):
    """A tokenizer that also knows how much its model reads: the `PromptEncoder` of a model in training."""

    def __init__(self, tokenizer: Any, *, context_tokens: int | None) -> None:
        super().__init__(tokenizer)
        self.context_tokens = context_tokens


class ListwiseNetwork(nn.Module):
    """Losses of FIRST over batches of examples.

    Only what the losses need is computed: the output matrix meets the positions of the answer, not those of the prompt,
    and at the first position of the answer also gives the identifier logits.

    Parameters
    ----------
    model
        A ``PreTrainedModel`` with a language-model head, or a ``PeftModel`` around one.
    settings
        Which losses, how weighted, and how much noise.
    """

    def __init__(self, model: Any, settings: ListwiseSettings) -> None:
        super().__init__()
        self.model = model
        self._settings = settings
        self._causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._output = OutputLayer(self._causal)
        self._sequence_tokens = 1.0  # mean length of what is read
        self._causal.get_input_embeddings().register_forward_hook(self._add_noise)

    def forward(self, examples: Sequence[Example]) -> Losses:
        """Compute the losses of a batch.

        Parameters
        ----------
        examples
            At least one.

        Returns
        -------
        Losses
            Means over the examples.
        """
        settings = self._settings
        wants_text = settings.language_model_weight > 0
        # The last token of an answer predicts nothing, so it is not read.
        hidden, starts = self._hidden(
            [(*example.prompt, *(example.answer[:-1] if wants_text else ())) for example in examples],
            counts=[len(example.answer) if wants_text else 1 for example in examples],
        )
        logits = self._head(hidden)  # [positions, V]
        zero = logits.new_zeros(())
        language_model, ranking = zero, zero
        if wants_text:
            wanted = torch.tensor([token for example in examples for token in example.answer], device=logits.device)
            language_model = F.cross_entropy(logits, wanted)
        if settings.ranking_loss is not None:
            scores, targets, where = _lists(logits[starts], examples)
            if settings.ranking_loss in GRADED_LOSSES:
                targets = _as_grades(targets, where=where)
            ranking = LOSSES[settings.ranking_loss](scores, targets, where=where)
        total = settings.language_model_weight * language_model + settings.rank_weight * ranking
        return Losses(total, language_model.detach(), ranking.detach())

    @torch.no_grad()
    def identifier_logits(self, examples: Sequence[Example]) -> list[Tensor]:
        """Read the identifiers where an answer would begin: float32 [candidates shown], one per example."""
        hidden, _ = self._hidden([example.prompt for example in examples], counts=[1] * len(examples))
        return [self._head(state)[list(example.labels)].cpu() for state, example in zip(hidden, examples, strict=True)]

    def _hidden(self, sequences: Sequence[Sequence[int]], *, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Final hidden states at the last `counts[i]` positions, [sum of counts, D], and where each sequence's begin.

        The sequences are packed: nothing is padded, and what several of them begin with is computed once.
        """
        self._sequence_tokens = sum(map(len, sequences)) / len(sequences)
        packing = pack(sequences, least_shared=LEAST_SHARED_TOKENS)
        device = next(self.model.parameters()).device
        trees = tree_masks(packing) if device.type == "cpu" and torch.is_grad_enabled() else None
        states = packed_states(self._causal.base_model, packing, counts, trees=trees)
        return states, [0, *itertools.accumulate(counts)][:-1]

    def _head(self, hidden: Tensor) -> Tensor:
        """Logits of the whole vocabulary, float32, as the model's own forward pass gives them."""
        return self._output.finish(self._causal.get_output_embeddings()(hidden).float())

    def _add_noise(self, _module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
        """NEFTune (Jain et al., arXiv 2310.05914): uniform noise in +-alpha / sqrt(T D), in training only.

        T is the mean length of the sequences, however many of them are packed into the row.
        """
        if not self.training or not self._settings.noise:
            return embedded
        bound = self._settings.noise / math.sqrt(self._sequence_tokens * embedded.shape[-1])
        return embedded + torch.empty_like(embedded).uniform_(-bound, bound)


def load_network(path: str, settings: ListwiseSettings) -> tuple[ListwiseNetwork, ModelTokenizer]:
    """Load a causal model for training.

    Parameters
    ----------
    path
        A folder or a hub name. Code that comes with a model is never run. A model that was trained here with adapters
        is trained on with these, on the model they were put on.
    settings
        `adapter_rank` decides whether adapters are put on it; `seed` draws them.

    Returns
    -------
    tuple
        The network on the CPU, float32 but for weights that adapters keep as they are (bfloat16 with that `precision`),
        and its tokenizer.

    Raises
    ------
    ConfigError
        If it cannot be loaded, packed prompts are not read exactly as its own forward pass reads each, or it has
        adapters of another rank or scale.
    MissingExtraError
        If adapters are asked for and ``peft`` is not installed.
    """
    use_avx512_products()
    adapter = Path(path) / ADAPTER_FOLDER
    if settings.adapter_rank and adapter.is_dir():
        made = json.loads((adapter / ADAPTER_FILE).read_text())
        rank, scale = made["r"], made["lora_alpha"] / made["r"]
        for name, found, wanted in (("rank", rank, settings.adapter_rank), ("scale", scale, settings.adapter_scale)):
            if found != wanted:
                raise ConfigError(
                    f"the adapters in {adapter} have {name} {found:g}, adapter_{name} is {wanted}; make it the same, "
                    "or move that folder away to train new adapters on the whole model"
                )
        path = made["base_model_name_or_path"]
    if Path(path).is_dir():
        path = str(Path(path).resolve())  # the adapters remember it, and whoever goes on with them may start elsewhere
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cannot load {path!r} as a causal language model: {error}") from error
    TransformersEngine(model, tokenizer)  # refuses what cannot be served; whatever can be packed is set to that
    attention = model.config._attn_implementation
    if attention != PACKED:
        raise ConfigError(
            f"{path}: training packs prompts, and with its attention ({attention}) packed ones are not read as the "
            "model's own forward pass reads each; use another model"
        )
    if settings.adapter_rank:
        model = _with_adapters(model, settings, trained=adapter)
        if settings.precision == "bf16":
            for weight in model.parameters():
                weight.data = weight.data if weight.requires_grad else weight.data.bfloat16()
            for part in model.modules():
                if hasattr(part, "cast_input_dtype_enabled"):
                    part.cast_input_dtype_enabled = False  # to float32, which autocast would only take back
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
        model.enable_input_require_grads()  # type: ignore[no-untyped-call]
    context_tokens = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return ListwiseNetwork(model, settings), ModelTokenizer(tokenizer, context_tokens=context_tokens)


def save_network(network: ListwiseNetwork, tokenizer: ModelTokenizer, folder: Path) -> None:
    """Write the model as one that any program loads, adapters merged; those are kept in ``adapter/`` beside it."""
    model = network.model
    if hasattr(model, "merge_adapter"):
        model.save_pretrained(str(folder / ADAPTER_FOLDER))
        model = model.float().merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.tokenizer.save_pretrained(folder)


def _with_adapters(model: Any, settings: ListwiseSettings, *, trained: Path) -> Any:
    """Put adapters on a model: those in the folder `trained`, if there is one, or new ones."""
    try:
        from peft import LoraConfig, PeftModel, get_peft_model
    except ImportError as error:
        raise MissingExtraError("peft", extra="train") from error
    torch.manual_seed(settings.seed)
    rank = settings.adapter_rank
    adapters = LoraConfig(
        r=rank, lora_alpha=settings.adapter_scale * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft 0.21 asks by the name that transformers 5 has given up.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        if trained.is_dir():
            return PeftModel.from_pretrained(model, str(trained), is_trainable=True)
        return get_peft_model(model, adapters)


def _lists(first_logits: Tensor, examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Identifier logits at the first position, targets and mask, padded to the longest list; [B, L] each."""
    longest = max(len(example.labels) for example in examples)

    def padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
        filled = [[*row, *[0] * (longest - len(row))] for row in rows]
        return torch.tensor(filled, dtype=dtype, device=first_logits.device)

    labels = padded([example.labels for example in examples], torch.long)
    targets = padded([example.targets for example in examples], torch.float32)
    where = padded([[1] * len(example.labels) for example in examples], torch.bool)
    return first_logits.gather(1, labels), targets, where


def _as_grades(targets: Tensor, *, where: Tensor) -> Tensor:
    """Scale the targets of each list to 0 .. `MAX_GRADE`; [B, L]."""
    lowest = targets.masked_fill(~where, torch.inf).amin(-1, keepdim=True)
    highest = targets.masked_fill(~where, -torch.inf).amax(-1, keepdim=True)
    return ((targets - lowest) / (highest - lowest).clamp_min(1e-6) * MAX_GRADE).masked_fill(~where, 0.0)

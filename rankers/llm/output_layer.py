"""The output layer of a language model, read one row at a time.

Exact for linear heads with a bias, a scale (Cohere: logits * logit_scale; Granite: logits / logits_scaling) or
soft-capping (Gemma 2: c * tanh(logits / c)). The engine compares with the model's own forward pass when it loads one,
so a head that does anything else is refused rather than misread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rankers.errors import ConfigError
from rankers.protocols import TokenIds

ROWS_AT_A_TIME = 256
"""Hidden states multiplied by the whole matrix at once; bounds memory at 256 times the vocabulary."""


class OutputLayer:
    """Rows of the output matrix of a model and what happens to a logit afterwards.

    Parameters
    ----------
    network
        A ``PreTrainedModel``.

    Raises
    ------
    ConfigError
        If the model has no output matrix.
    """

    def __init__(self, network: Any) -> None:
        head = network.get_output_embeddings()
        if not isinstance(head, torch.nn.Linear):
            raise ConfigError(f"{network.config.name_or_path}: the output layer is {type(head).__name__}, not linear")
        self._weight = head.weight  # [V, D]
        self._bias = head.bias  # [V] or None
        config = network.config.get_text_config()
        self._scale = float(getattr(config, "logit_scale", None) or 1.0)
        self._scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        self._soft_cap: float | None = getattr(config, "final_logit_softcapping", None)

    @property
    def vocabulary(self) -> int:
        """Number of rows, V."""
        return int(self._weight.shape[0])

    def logits(self, hidden: torch.Tensor, candidates: Sequence[TokenIds]) -> list[npt.NDArray[np.float32]]:
        """Multiply each hidden state by the rows of its candidates, in float32.

        Parameters
        ----------
        hidden
            [B, D], one per prompt.
        candidates
            For each prompt, indexes of rows.

        Returns
        -------
        list of ndarray
            float32 [len(candidates[i])].
        """
        results = []
        for state, wanted in zip(hidden, candidates, strict=True):
            rows = torch.as_tensor(wanted, dtype=torch.long, device=hidden.device)
            results.append(self._finish(self._weight[rows].float() @ state.float(), rows).cpu().numpy())
        return results

    def log_probabilities(self, hidden: torch.Tensor, wanted: TokenIds) -> npt.NDArray[np.float32]:
        """Log-softmax over the whole vocabulary, read at one entry per hidden state.

        Parameters
        ----------
        hidden
            [B, D].
        wanted
            One index per hidden state.

        Returns
        -------
        ndarray
            float32 [B].
        """
        results = []
        for start in range(0, len(wanted), ROWS_AT_A_TIME):
            states, tokens = hidden[start : start + ROWS_AT_A_TIME], wanted[start : start + ROWS_AT_A_TIME]
            logits = self._finish((states @ self._weight.T).float(), slice(None))  # [b, V]
            picked = logits[torch.arange(len(tokens)), torch.as_tensor(tokens, device=logits.device)]
            results.append((picked - logits.logsumexp(dim=-1)).cpu().numpy())
        return np.concatenate(results)

    def finish(self, values: torch.Tensor) -> torch.Tensor:
        """Scale and cap what the output matrix and its bias give, as the model does; any shape."""
        values = values * self._scale
        return self._soft_cap * torch.tanh(values / self._soft_cap) if self._soft_cap else values

    def _finish(self, values: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
        return self.finish(values if self._bias is None else values + self._bias[rows].float())

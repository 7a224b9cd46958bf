"""Language models from GGUF files, as plain transformers models.

transformers reads GGUF by dequantising it, keeps a note of the quantisation in the configuration, and then refuses to
save the result. What is returned here carries no such note: an ordinary model that can be saved and loaded anywhere.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from rankers.errors import ConfigError, MissingExtraError

GGUF_SUFFIX = ".gguf"


def load_gguf(path: Path, *, dtype: Any) -> tuple[Any, Any]:
    """Read a GGUF file.

    Parameters
    ----------
    path
        The file.
    dtype
        A ``torch.dtype`` for the weights. The blocks of a quantised file hold scale * integer + offset, which float32
        represents exactly and bfloat16 does not.

    Returns
    -------
    tuple
        The model (a ``PreTrainedModel``, on the CPU) and its tokenizer with the chat template of the file.

    Raises
    ------
    ConfigError
        If there is no such file, or transformers cannot read it.
    MissingExtraError
        If ``gguf`` or ``accelerate`` is not installed.
    """
    if not path.is_file():
        raise ConfigError(f"no GGUF file at {path}")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra="offline")

    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(path.parent)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
        dequantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, dtype=dtype)
    except (ValueError, KeyError, OSError, NotImplementedError) as error:
        raise ConfigError(f"transformers cannot read the GGUF file {path}: {error}") from error
    config = dequantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    model.load_state_dict(dequantised.state_dict())
    model.tie_weights()
    return model, tokenizer

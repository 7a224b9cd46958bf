"""The model that is trained: a cross-encoder to go on with, or one made of an encoder."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder
from transformers import AutoConfig, AutoModel, AutoTokenizer

from rankers.errors import ConfigError
from rankers.pair_similarity import PairSimilarityConfig, PairSimilarityModel
from training.cross_encoder.settings import CrossEncoderSettings

HEAD_PARAMETERS = r"(^|\.)(head|classifier)\."
"""Names of the parameters that a new head brings, as a pattern."""


def start_cross_encoder(path: str, settings: CrossEncoderSettings) -> CrossEncoder:
    """Load what training starts from.

    Parameters
    ----------
    path
        A folder or a hub name: a cross-encoder with one output is gone on with; any other encoder gets a new head, and
        with ``head="similarity"`` starts as good as it is as a bi-encoder. Code that comes with a model is never run.
    settings
        The head, and what stays as it is.

    Returns
    -------
    CrossEncoder
        float32, in the default device of sentence-transformers.

    Raises
    ------
    ConfigError
        If it cannot be loaded, gives more than one number per pair, or the head does not fit the encoder.
    """
    torch.manual_seed(settings.seed)
    try:
        if settings.head == "similarity" and not is_cross_encoder(path):
            model = _with_similarity_head(path, settings)
        else:
            model = CrossEncoder(path, num_labels=None if is_cross_encoder(path) else 1, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load {path!r} to train a cross-encoder from: {error}") from error
    if model.num_labels != 1:
        raise ConfigError(f"{path!r} gives {model.num_labels} numbers per pair; training needs a model with 1 or none")
    _freeze(model.model, settings)
    return model


def _freeze(network: Any, settings: CrossEncoderSettings) -> None:
    if settings.freeze_embeddings:
        # Words alone: positions and layer norms cost nothing to train and to ship.
        network.get_input_embeddings().weight.requires_grad_(False)
    if settings.layers is not None:
        body = network.base_model
        stack = getattr(getattr(body, "encoder", None), "layer", None)
        if stack is None or settings.layers > len(stack):
            raise ConfigError(
                f"layers is {settings.layers}, but {type(body).__name__} has "
                f"{'no encoder.layer to count them in' if stack is None else len(stack)}; leave it out"
            )
        for parameter in body.parameters():
            parameter.requires_grad_(False)
        for layer in stack[len(stack) - settings.layers :]:
            layer.requires_grad_(True)


def is_cross_encoder(path: str) -> bool:
    """Whether a folder or hub name is one already, so that it is gone on with as it is."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    architecture: str = (config.architectures or [""])[0]
    return architecture.endswith(("ForSequenceClassification", PairSimilarityModel.__name__))


def _with_similarity_head(path: str, settings: CrossEncoderSettings) -> CrossEncoder:
    base = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if base.model_type != "bert":
        raise ConfigError(
            f"{path!r} is a {base.model_type} model; head 'similarity' needs BERT, so set head=classifier"
        )
    # Without dropout, what is trained begins as what is measured, and a short run does not have to learn that first.
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options: dict[str, Any] = base.to_dict() | dropout | {"cross_attention": settings.cross_attention}
    for key in ("model_type", "architectures", "transformers_version", "id2label", "label2id"):
        options.pop(key, None)
    network = PairSimilarityModel(PairSimilarityConfig(**options))
    encoder = AutoModel.from_pretrained(path, dtype=torch.float32, trust_remote_code=False).state_dict()
    network.bert.load_state_dict({name: value for name, value in encoder.items() if not name.startswith("pooler.")})
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    tokenizer.model_max_length = base.max_position_embeddings
    with tempfile.TemporaryDirectory(prefix="shortlist-start-") as folder:
        # Not network.save_pretrained, which writes nothing in any but the first of several processes.
        network.config.architectures = [PairSimilarityModel.__name__]
        network.config.save_pretrained(folder)
        save_file(network.state_dict(), f"{folder}/model.safetensors", {"format": "pt"})
        tokenizer.save_pretrained(folder)
        model: CrossEncoder = CrossEncoder(folder, trust_remote_code=False)
    return model

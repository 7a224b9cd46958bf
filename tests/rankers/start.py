"""A cross-encoder with the similarity head, made of a bi-encoder as the trainer makes it."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import CrossEncoder
from transformers import AutoConfig, AutoModel, AutoTokenizer

from rankers.pair_similarity import PairSimilarityConfig, PairSimilarityModel


def start_from(path: str, folder: Path) -> CrossEncoder:
    """Put the head on the encoder at `path`, with `folder` as a place to write to."""
    base = AutoConfig.from_pretrained(path)
    options = {
        key: value
        for key, value in base.to_dict().items()
        if key not in {"model_type", "architectures", "id2label", "label2id"}
    }
    network = PairSimilarityModel(PairSimilarityConfig(**options))
    weights = AutoModel.from_pretrained(path).state_dict()
    network.bert.load_state_dict({name: value for name, value in weights.items() if not name.startswith("pooler.")})
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    model: CrossEncoder = CrossEncoder(str(folder))
    return model

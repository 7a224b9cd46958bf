"""A cross-encoder that begins as the bi-encoder it is made from: a pair is read together, its two sides are compared.

A classifier on top of a bi-encoder starts from chance and needs very many pairs to learn what the encoder knew. Here
the two texts are encoded in one sequence, each with positions of its own and with attention to the other held back by a
constant; their mean vectors are compared as the bi-encoder compares them, their tokens as late interaction does
(Khattab and Zaharia, "ColBERT", SIGIR 2020). Training opens the attention between the two texts, weighs the dimensions
and the words, and adds what the first token has gathered.

Importing this module makes the architecture known to transformers: a folder whose ``config.json`` names it then loads
wherever a sequence classifier does, sentence-transformers' CrossEncoder included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

MODEL_TYPE = "bert-pair-similarity"
SCALES = (6.0, 2.0, 1.0)
"""What the cosine of the texts, the similarity of their words and the share of words in common are multiplied by before
training: about the best that ListNet finds for all-MiniLM-L6-v2 on 190 training lists of four collections."""
ABSENT = -1e4
"""Additive attention to padding."""


class PairSimilarityConfig(BertConfig):  # type: ignore[no-untyped-call]
    """BERT's configuration and `cross_attention`, what is added to attention logits between the two texts."""

    model_type = MODEL_TYPE

    def __init__(self, cross_attention: float = -2.5, **options: Any) -> None:
        super().__init__(**{"num_labels": 1, **options})
        self.cross_attention = cross_attention


class SimilarityHead(nn.Module):
    """One logit from the token vectors of a pair.

    The features are the product of the two mean vectors by dimension, the similarity of every word of the first text to
    its most similar token of the second, how many words of the first occur in the second, and the first token's vector.
    Words of the first text are weighted by a softmax over what `importance` says of them.

    Parameters
    ----------
    dimensions
        D of the token vectors.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.importance = nn.Linear(dimensions, 1, bias=False)
        self.out = nn.Linear(2 * dimensions + 2, 1)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Start as the bi-encoder: all words alike, all dimensions alike, nothing from the first token."""
        dimensions = self.importance.in_features
        self.importance.weight.zero_()
        self.out.weight.zero_()
        self.out.weight[:, : dimensions + 2] = 1.0
        self.out.bias.zero_()

    def forward(self, states: Tensor, ids: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Compute logits: float [B, 1].

        Parameters
        ----------
        states
            Token vectors, float [B, T, D].
        ids
            Token ids, int [B, T].
        first
            Words of the first text without special tokens, bool [B, T].
        second
            Those of the second text.

        Returns
        -------
        Tensor
            Logits.
        """
        product = _mean(states, first) * _mean(states, second)  # [B, D]
        weights = self.importance(states).squeeze(-1).masked_fill(~first, ABSENT).softmax(dim=-1)  # [B, T]
        units = F.normalize(states, dim=-1)
        similar = (units @ units.transpose(1, 2)).masked_fill(~second[:, None, :], -1.0).amax(dim=-1)  # [B, T]
        occurs = ((ids[:, :, None] == ids[:, None, :]) & second[:, None, :]).any(dim=-1).to(states.dtype)  # [B, T]
        texts, similarity, occurrence = SCALES
        words = torch.stack([similarity * (weights * similar).sum(-1), occurrence * (weights * occurs).sum(-1)], dim=-1)
        logits: Tensor = self.out(torch.cat([texts * product, words, states[:, 0]], dim=-1))
        return logits


class PairSimilarityModel(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """BERT with a `SimilarityHead`, as a sequence classifier of transformers."""

    config_class = PairSimilarityConfig

    def __init__(self, config: PairSimilarityConfig) -> None:
        super().__init__(config)
        self.num_labels = 1
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = SimilarityHead(config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call]
        self.head.reset()  # which has drawn it at random

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, **_options: Any
    ) -> SequenceClassifierOutput:
        """Compute one logit per pair.

        Parameters
        ----------
        input_ids
            ``[CLS] first [SEP] second [SEP]``, int [B, T], padded on the right.
        attention_mask
            1 where there is a token.
        token_type_ids
            1 for the second text.
        **_options
            What callers pass to any model, such as ``return_dict``; not used.

        Returns
        -------
        SequenceClassifierOutput
            Logits, float [B, 1].
        """
        real, second = attention_mask.bool(), token_type_ids.bool()
        start = (real & ~second).sum(dim=1, keepdim=True)
        places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        beginning = places == 0
        # The second text starts anew at 1; the first token, at 0, is seen by both without a penalty.
        positions = torch.where(second, places - start + 1, places)
        together = (second[:, :, None] == second[:, None, :]) | beginning[:, None, :]
        attention = torch.where(together, 0.0, float(self.config.cross_attention))
        attention = attention.masked_fill(~real[:, None, :], ABSENT)[:, None]  # [B, 1, T, T]
        states = self.bert(
            input_ids=input_ids,
            attention_mask=attention.to(self.dtype),
            token_type_ids=torch.zeros_like(token_type_ids),
            position_ids=positions,
        ).last_hidden_state
        last = real.sum(dim=1, keepdim=True) - 1
        words = real & ~beginning & (places != start - 1) & (places != last)
        # In bfloat16, where the body may run, cosines that differ by less than 1/256 would be ties.
        with torch.autocast(states.device.type, enabled=False):
            exact = states.to(self.head.out.weight.dtype)
            return SequenceClassifierOutput(logits=self.head(exact, input_ids, words & ~second, words & second))


def _mean(states: Tensor, where: Tensor) -> Tensor:
    """Mean vector over the tokens in `where`, of unit length: float [B, D]."""
    return F.normalize((states * where[..., None]).sum(dim=1), dim=-1)


AutoConfig.register(MODEL_TYPE, PairSimilarityConfig)
AutoModelForSequenceClassification.register(PairSimilarityConfig, PairSimilarityModel)

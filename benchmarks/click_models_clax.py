"""Click models of the library CLAX on the sessions of `benchmarks.click_models`.

    pip install clax-models "jax<0.7.2"
    python -m benchmarks.click_models_clax path/to/yandex-clicks

CLAX (Hager, Zoeter, de Rijke, 2025) fits click models by gradient descent in JAX, session by session. Nine of ten
training sessions are fitted, the tenth stops the fit (AdamW .003, at most 50 epochs, batches of 512). Measures are
our own, over the chances that its models give.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import numpy as np
import numpy.typing as npt
from clax import Trainer
from clax.models import (
    CascadeModel,
    DependentClickModel,
    DynamicBayesianNetwork,
    PositionBasedModel,
    UserBrowsingModel,
)
from flax import nnx
from flax.training.early_stopping import EarlyStopping
from optax import adamw

from benchmarks.click_models import read_sessions
from training.clicks.models.measures import log_likelihood, perplexity
from training.ultr.lists import ClickLists

BATCH = 512
MODELS = {
    "PBM": PositionBasedModel,
    "cascade": CascadeModel,
    "DCM": DependentClickModel,
    "DBN": DynamicBayesianNetwork,
    "UBM": UserBrowsingModel,
}
Batch = dict[str, npt.NDArray[np.generic]]


class Chances:
    """A model of CLAX as a `training.clicks.models.model.ClickModel`."""

    def __init__(self, model: nnx.Module, pairs: int) -> None:
        self._model = model
        self._pairs = pairs

    def click_chances(self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        nothing = np.zeros(rows.shape, dtype=np.bool_)
        return np.exp(np.asarray(self._model.predict_clicks(batch(rows, slots, nothing, self._pairs)), np.float64))

    def next_chances(
        self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        found = self._model.predict_conditional_clicks(batch(rows, slots, clicked, self._pairs))
        return np.exp(np.asarray(found, np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    train = read_sessions(options.data / "train.jsonl")
    test = read_sessions(options.data / "test.jsonl", onto=train.keys)
    pairs = len(train.keys.document_ids)
    fitted, held_out = batches(train.lists, pairs)
    print("| CLAX model | perplexity | log-likelihood | s to fit |")
    print("| --- | --- | --- | --- |")
    for name, model_type in MODELS.items():
        sizes = {} if model_type in {CascadeModel, DynamicBayesianNetwork} else {"positions": 10}
        model = model_type(query_doc_pairs=pairs + 1, rngs=nnx.Rngs(0), **sizes)
        trainer = Trainer(adamw(0.003), epochs=50, early_stopping=EarlyStopping(patience=1, min_delta=1e-5))
        started = time.perf_counter()
        trainer.train(model, fitted, held_out)
        seconds = time.perf_counter() - started
        model.eval()
        chances = Chances(model, pairs)
        mean, likelihood = perplexity(chances, test.lists).mean, log_likelihood(chances, test.lists)
        print(f"| {name} | {mean:.4f} | {likelihood:.4f} | {seconds:.1f} |", flush=True)


def batches(lists: ClickLists, pairs: int) -> tuple[list[Batch], list[Batch]]:
    """Sessions laid out again, shuffled, nine tenths to fit and one to stop by."""
    patterns = lists.patterns
    assert patterns is not None
    sessions = np.random.default_rng(0).permutation(np.repeat(np.arange(len(patterns.lists)), patterns.sessions))
    laid_out = [
        batch(lists.rows[of], lists.slots[of], patterns.clicked[part], pairs)
        for part in np.split(sessions, range(BATCH, len(sessions), BATCH))
        for of in [patterns.lists[part]]
    ]
    held_out = len(laid_out) // 10
    return laid_out[held_out:], laid_out[:held_out]


def batch(
    rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_], pairs: int
) -> Batch:
    """What the models of CLAX read; ids count from 1, and pairs not in training share one that is never fitted."""
    return {
        "query_doc_ids": np.where(rows < pairs, rows + 1, pairs + 1),
        "positions": slots + 1,
        "clicks": clicked.astype(np.float32),
        "mask": rows >= 0,
    }


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()

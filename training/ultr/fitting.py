"""The training loop of all network learners."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankers.errors import InvalidInputError
from rankers.ltr.models import NetworkRanker
from rankers.ltr.networks import Normaliser, RankingNetwork, Scorer, layer_sizes
from training.ultr.batch import BatchSource, ListwiseBatch, split_queries
from training.ultr.correction import ClickCorrection
from training.ultr.learner import FittedRanker, Progress
from training.ultr.lists import PADDING, ClickLists

OPTIMISER = "optimiser."
CORRECTION = "correction."


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """A scorer and how it is trained.

    Parameters
    ----------
    hidden
        Sizes of the hidden layers; none of them makes it linear.
    learning_rate
        Of AdamW (Loshchilov, Hutter, ICLR 2019).
    weight_decay
        Of AdamW.
    dropout
        Chance that a normalised feature of a document reads 0, its mean, for one step (Srivastava et al., JMLR 2014).
    batch_lists
        Most lists of one step.
    most_steps
        Steps after which training ends in any case.
    check_every
        Steps between looks at the held-out queries.
    patience
        Looks without a better held-out loss after which training ends.
    held_out
        Share of the queries held out, 0 to below 1. With 0 all `most_steps` are taken.
    """

    hidden: tuple[int, ...] = (64, 32)
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.3
    batch_lists: int = 256
    most_steps: int = 1000
    check_every: int = 5
    patience: int = 16
    held_out: float = 0.2


class NetworkTrainer:
    """Takes single steps; what `fit_network` repeats, and what a stream of sessions can be fed to.

    Parameters
    ----------
    network
        Changed by training.
    correction
        Changed by training.
    settings
        Learning rate, weight decay and dropout are read.
    seed
        Of dropout.
    """

    def __init__(
        self, network: RankingNetwork, correction: ClickCorrection, settings: NetworkSettings, *, seed: int = 0
    ) -> None:
        self.network = network
        self.correction = correction
        self._dropout = settings.dropout
        self._generator = torch.Generator().manual_seed(seed)
        self._optimiser = torch.optim.AdamW(
            network.scorer.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def step(self, batch: ListwiseBatch) -> float:
        """Learn from one batch of normalised features, and give its loss."""
        values = batch.features
        if self._dropout > 0:
            # A feature is dropped for all documents of a list, or for none: half a column would be an order by itself.
            drawn = torch.rand(len(values), 1, values.shape[-1], generator=self._generator)
            values = values * (drawn >= self._dropout) / (1.0 - self._dropout)
        scores: Tensor = self.network.scorer(values)
        with torch.no_grad():
            self.correction.learn(scores.detach(), batch)
        loss = self.correction.loss(scores, batch)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        """Moments of the optimiser by name of the weight, and what the correction learnt."""
        moments = self._optimiser.state
        return {
            f"{OPTIMISER}{name}.{moment}": value.clone()
            for name, parameter in self.network.scorer.named_parameters()
            for moment, value in moments[parameter].items()
        } | {f"{CORRECTION}{name}": value for name, value in self.correction.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state` of a trainer of a network of the same layers."""
        for name, parameter in self.network.scorer.named_parameters():
            moments = _under(f"{OPTIMISER}{name}.", state)
            if moments:
                self._optimiser.state[parameter] = {moment: value.clone() for moment, value in moments.items()}
        self.correction.load_state(_under(CORRECTION, state))


def fit_network(
    lists: ClickLists,
    correction: ClickCorrection,
    settings: NetworkSettings,
    *,
    warm_start: FittedRanker | None = None,
    seed: int = 0,
    config: Mapping[str, object],
) -> FittedRanker:
    """Train a network on clicks that a correction makes into losses, and stop by held-out queries.

    The result is the network with the lowest corrected loss on held-out queries. As the correction changes while it
    learns, the best network so far and the current one are compared under the same correction each time. Labels are
    never looked at. The first network compared is the one training starts from: where clicks say nothing that carries
    over to other queries, a new network gives all documents one score, and a continued one stays as it was.

    Parameters
    ----------
    lists
        The collapsed log.
    correction
        Not used before; it is changed.
    settings
        With a warm start `hidden` must be that of the earlier network.
    warm_start
        A ranker with the same kind of correction over the same features; its normaliser is kept.
    seed
        Of the first weights, the split, the order of batches and dropout.
    config
        To store with the ranker.

    Returns
    -------
    FittedRanker
        With propensities if the correction has any.

    Raises
    ------
    InvalidInputError
        If the log has no clicks, or the warm start does not fit.
    """
    learn_from, held_out = (
        torch.from_numpy(part) for part in split_queries(lists, held_out=settings.held_out, seed=seed)
    )
    if not len(learn_from):
        raise InvalidInputError(f"none of {lists.sessions} sessions has a click; there is nothing to learn from")
    network = _first_network(lists, learn_from.numpy(), settings, warm_start, seed)
    trainer = NetworkTrainer(network, correction, settings, seed=seed)
    if warm_start is not None:
        trainer.load_state(warm_start.state)
    source = BatchSource(lists, network.normalised(lists.features), pairs=correction.needs_pairs)
    best = _Best(trainer, source, held_out) if len(held_out) else None
    batches = _endless(source, learn_from, batch_lists=settings.batch_lists, seed=seed)
    history: list[Progress] = []
    losses: list[float] = []
    for step in range(settings.most_steps):
        losses.append(trainer.step(next(batches)))
        if (step + 1) % settings.check_every == 0 or step + 1 == settings.most_steps:
            held_out_loss = best.compare(step + 1) if best is not None else None
            history.append(Progress(step + 1, float(np.mean(losses)), held_out_loss))
            losses.clear()
            if best is not None and step + 1 - best.step >= settings.patience * settings.check_every:
                break
    state = trainer.state()
    if best is not None:
        network.scorer.load_state_dict(best.scorer)
        state = best.state
    correction.settle(*source.scored(network.scorer, learn_from))
    state |= {f"{CORRECTION}{name}": value for name, value in correction.state().items()}
    return FittedRanker(
        NetworkRanker(network, lists.feature_names), correction.propensities(), tuple(history), state, config
    )


class _Best:
    """The scorer that held-out queries liked best so far, and what training it knew."""

    def __init__(self, trainer: NetworkTrainer, source: BatchSource, held_out: Tensor) -> None:
        self._trainer = trainer
        self._source = source
        self._held_out = held_out
        self.step = 0
        self._keep(0, source.scored(trainer.network.scorer, held_out)[0])

    def _keep(self, step: int, scores: Tensor) -> None:
        self.step = step
        self._scores = scores
        self.scorer = copy.deepcopy(self._trainer.network.scorer.state_dict())
        self.state = self._trainer.state()

    def compare(self, step: int) -> float:
        """Keep the current scorer if it beats the best one as clicks are corrected now; give its loss."""
        scores, batch = self._source.scored(self._trainer.network.scorer, self._held_out)
        with torch.no_grad():
            loss = float(self._trainer.correction.loss(scores, batch))
            best = float(self._trainer.correction.loss(self._scores, batch))
        if loss < best:
            self._keep(step, scores)
        return loss


def _first_network(
    lists: ClickLists,
    learn_from: npt.NDArray[np.int64],
    settings: NetworkSettings,
    warm_start: FittedRanker | None,
    seed: int,
) -> RankingNetwork:
    if warm_start is None:
        # What is held out must not shape the features either.
        rows = np.unique(lists.rows[learn_from])
        normaliser = Normaliser.fit(lists.features[rows[rows != PADDING]])
        return RankingNetwork(normaliser, Scorer(normaliser.width, settings.hidden, seed=seed))
    model = warm_start.model
    if not isinstance(model, NetworkRanker) or model.feature_names != lists.feature_names:
        raise InvalidInputError(
            f"the warm start is a {model.kind} ranker of {len(model.feature_names)} features; a network of the same "
            f"{len(lists.feature_names)} features is needed"
        )
    state = model.network.state_dict()
    if layer_sizes(state) != settings.hidden:
        raise InvalidInputError(
            f"the warm start has hidden layers {layer_sizes(state)}, settings say {settings.hidden}"
        )
    return RankingNetwork.of_state({name: value.clone() for name, value in state.items()})


def _endless(source: BatchSource, chosen: Tensor, *, batch_lists: int, seed: int) -> Iterator[ListwiseBatch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from source.shuffled(chosen, batch_lists=batch_lists, generator=generator)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

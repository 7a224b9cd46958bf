"""The dual learning algorithm where examination depends on more than the slot: on what else is on the page.

Fang, Agarwal, Joachims, "Intervention harvesting for context-dependent examination-bias estimation", SIGIR 2019, whose
contextual position-based model is p_k(x), examination of slot k in the context x; several features of the page at once:
Chen et al., "Multi-feature integration for perception-dependent examination-bias estimation", WSDM Cup 2023. Here log
p_k(x) is linear in x with weights of its own for each slot, and is learnt beside relevance instead of from swaps.

Letters in shapes: S lists, L places, C features of a showing, K slots, M distinct showings, B lists of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankers.errors import InvalidInputError
from training.ultr.batch import ListwiseBatch
from training.ultr.examination import CLIP, NEGLIGIBLE, relative, slot_groups
from training.ultr.fitting import CORRECTION, NetworkSettings, fit_network
from training.ultr.learner import FittedRanker, settings_of
from training.ultr.lists import ClickLists
from training.ultr.losses import inverse_weights, log_softmax, softmax_loss

RIDGE = 1e-4
"""Of the squared weights, against a loss of about 2; decides where clicks say nothing."""
LONGEST_STEP, SETTLE_STEPS, CLOSE = 2.0, 50, 1e-6


@dataclass(frozen=True, slots=True)
class Context:
    """Which logged features say something about where a document was shown, not about the document.

    The number of results is always one of them.

    Parameters
    ----------
    of_list
        Features that are about the whole list: the kind of query, what is above the results. Their mean over the list
        counts.
    of_previous
        Features of the document one place before that change who looks at the next one: its height, a picture.
    """

    of_list: tuple[str, ...] = ()
    of_previous: tuple[str, ...] = ()

    def values(self, lists: ClickLists) -> npt.NDArray[np.float64]:
        """Describe every place.

        Parameters
        ----------
        lists
            With these features.

        Returns
        -------
        array
            float64 [S, L, C], NaN where something is missing, as before the first place.

        Raises
        ------
        InvalidInputError
            If a feature is not in the lists.
        """
        missing = [name for name in (*self.of_list, *self.of_previous) if name not in lists.feature_names]
        if missing:
            raise InvalidInputError(
                f"the context has {missing}, which are not among the {len(lists.feature_names)} features of the log; "
                "log them with the documents, or leave them out"
            )
        columns = [np.broadcast_to(lists.mask.sum(axis=1, keepdims=True), lists.rows.shape).astype(np.float64)]
        for name in self.of_list:
            values = self._column(lists, name)
            known = np.isfinite(values)
            mean = np.where(known, values, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
            columns.append(np.broadcast_to(mean[:, None], lists.rows.shape))
        for name in self.of_previous:
            values = self._column(lists, name)
            columns.append(np.concatenate([np.full((len(values), 1), np.nan), values[:, :-1]], axis=1))
        return np.stack(columns, axis=-1)

    def _column(self, lists: ClickLists, name: str) -> npt.NDArray[np.float64]:
        column = lists.features[:, lists.feature_names.index(name)].astype(np.float64)
        return np.where(lists.mask, column[np.maximum(lists.rows, 0)], np.nan)


@dataclass(frozen=True, slots=True)
class ContextDla:
    """DLA with examination by slot and context, on a network; a `training.ultr.learner.Learner`.

    The context is known from query, documents, order and layout, so the collapsed log has all it needs, and is as exact
    for it as for DLA. What differs between showings of one list in one layout (the device) needs slots of its own.

    Parameters
    ----------
    context
        Which features of the log describe a showing.
    network
        The scorer and how it is trained.
    memory
        Share of the estimate of examination that a step keeps, 0 to below 1.
    clip
        Largest weight of a click.
    """

    context: Context = field(default_factory=Context)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    memory: float = 0.97
    clip: float = CLIP

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; propensities are means over the showings of each slot."""
        if warm_start is not None and (learnt := _learnt_context(warm_start)) != self.context:
            raise InvalidInputError(f"the warm start was learnt with {learnt}, the same as {self.context} is needed")
        showings, numbered = number_showings(
            lists, self.context, _scale_of(warm_start) if warm_start is not None else None
        )
        correction = ContextExamination(showings, memory=self.memory, clip=self.clip)
        fitted = fit_network(
            numbered, correction, self.network, warm_start=warm_start, seed=seed, config=settings_of(self)
        )
        return replace(fitted, propensities=_by_slot(lists, examination_of_places(fitted, lists)))


@dataclass(frozen=True, slots=True)
class Showings:
    """Every distinct (slot, context) of a log: slots int64 [M], context float64 [M, C + 1] with 1 first.

    Context is (value - `mean`) / `spread`, both float64 [C], and 0 where it is missing.
    """

    slots: Tensor
    context: Tensor
    mean: Tensor
    spread: Tensor


def number_showings(
    lists: ClickLists, context: Context, scale: tuple[Tensor, Tensor] | None
) -> tuple[Showings, ClickLists]:
    """Number distinct showings.

    Parameters
    ----------
    lists
        With the features of the context.
    context
        What describes a showing.
    scale
        Mean and spread of the context, float64 [C] each; those of these lists if None.

    Returns
    -------
    tuple
        The showings, and the lists with their numbers for slots.

    Raises
    ------
    InvalidInputError
        If a feature of the context is not in the lists.
    """
    mask, values = lists.mask, context.values(lists)
    seen = values[mask]
    if scale is None:
        known = np.isfinite(seen)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, seen, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, seen - mean, 0.0) ** 2).sum(axis=0) / count)
        scale = torch.from_numpy(mean), torch.from_numpy(np.where(spread > NEGLIGIBLE, spread, 1.0))
    standard = np.nan_to_num((seen - scale[0].numpy()) / scale[1].numpy())
    described = np.concatenate([lists.slots[mask][:, None], np.ones((len(seen), 1)), standard], axis=1)
    distinct, number = np.unique(described, axis=0, return_inverse=True)
    numbers = np.zeros(lists.rows.shape, dtype=np.int64)
    numbers[mask] = number.reshape(-1)
    rows = torch.from_numpy(distinct)
    return Showings(rows[:, 0].long(), rows[:, 1:], *scale), replace(lists, slots=numbers)


class ContextExamination:
    """Examination as logits b_k + w_k x that take Newton steps; a `training.ultr.correction.ClickCorrection`.

    Slots of the batches are numbers of showings. Only ratios within a list can be seen in clicks, so a click is
    weighted by the most examined place of its list over its own.

    Parameters
    ----------
    showings
        What the numbers stand for.
    memory
        Share of the estimate that a step keeps, 0 to below 1.
    clip
        Largest weight of a click.
    """

    needs_pairs = False

    def __init__(self, showings: Showings, *, memory: float = 0.97, clip: float = CLIP) -> None:
        self._showings = showings
        self._memory, self._clip = memory, clip
        slots = int(showings.slots.max()) + 1 if len(showings.slots) else 0
        self._weights = torch.full((slots, showings.context.shape[1]), torch.nan, dtype=torch.float64)

    def loss(self, scores: Tensor, batch: ListwiseBatch) -> Tensor:
        """Softmax loss of clicks weighted by inverse examination."""
        examined = _relative_to_list(_logits(self._weights, self._showings)[batch.slots], where=batch.mask)
        weights = (1.0 / examined).clamp_max(self._clip).to(scores.dtype)
        return softmax_loss(scores, batch.clicks, where=batch.mask, weights=weights)

    def learn(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Move examination towards what explains clicks weighted by inverse relevance."""
        step, seen = self._newton_step(scores, batch)
        kept = torch.where(self._weights.isnan(), step, self._memory * self._weights + (1 - self._memory) * step)
        self._weights = torch.where(seen[:, None], kept, self._weights)

    def settle(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Set examination to what explains all clicks best; the loss is convex."""
        for _ in range(SETTLE_STEPS):
            before = self._weights
            step, seen = self._newton_step(scores, batch)
            self._weights = torch.where(seen[:, None], step, before)
            if (self._weights.nan_to_num(0.0) - before.nan_to_num(0.0)).abs().max() < CLOSE:
                break

    def _newton_step(self, scores: Tensor, batch: ListwiseBatch) -> tuple[Tensor, Tensor]:
        """Weights after a step down the softmax loss of logits, float64 [K, C + 1], and the slots with clicks, [K].

        The curvature is sum_s W_s (sum_i p_i x_i x_i' - m_s m_s') with m_s = sum_i p_i x_i, p the softmax of list s and
        W_s its weighted clicks, per weighted click; x_i is 0 but for the weights of the slot of place i.
        """
        clicks = (batch.clicks * inverse_weights(scores, where=batch.mask, clip=self._clip)).double()
        given = clicks.sum(dim=-1, keepdim=True) / clicks.sum().clamp_min(NEGLIGIBLE)
        current, (size, width) = self._weights.nan_to_num(0.0), self._weights.shape
        slots, context = self._showings.slots[batch.slots], self._showings.context[batch.slots]
        logits = _logits(current, self._showings)[batch.slots]
        chances = log_softmax(logits, where=batch.mask).exp().masked_fill(~batch.mask, 0.0)

        def by_slot(values: Tensor) -> Tensor:
            flat = values.flatten(0, 1)
            return flat.new_zeros(size, *flat.shape[1:]).index_add(0, slots.flatten(), flat)

        surplus = given * chances - clicks / clicks.sum().clamp_min(NEGLIGIBLE)
        gradient = by_slot(surplus[..., None] * context) + 2 * RIDGE * current
        means = context.new_zeros(len(slots), size, width)
        means.scatter_add_(1, slots[..., None].expand_as(context), chances[..., None] * context)
        means = means.flatten(1)
        blocks = by_slot((given * chances)[..., None, None] * context[..., :, None] * context[..., None, :])
        curvature = torch.block_diag(*blocks) - means.T @ (given * means)
        curvature = curvature + 2 * RIDGE * torch.eye(size * width, dtype=curvature.dtype)
        move = torch.linalg.solve(curvature, gradient.flatten()).reshape(size, width)
        return current - move.clamp(-LONGEST_STEP, LONGEST_STEP), by_slot((given * chances)[..., None])[:, 0] > 0

    def propensities(self) -> npt.NDArray[np.float64] | None:
        """None: slots alone do not say it; see `examination_of_places`."""
        return None

    def state(self) -> dict[str, Tensor]:
        """See `ClickCorrection`; with the scale of the context."""
        return {
            "weights": self._weights.clone(),
            "mean": self._showings.mean.clone(),
            "spread": self._showings.spread.clone(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `ClickCorrection`; slots that are new stay unknown."""
        known = min(len(state["weights"]), len(self._weights))
        self._weights[:known] = state["weights"][:known]


def _logits(weights: Tensor, showings: Showings) -> Tensor:
    """Log examination of showings up to a constant for each list, float64 [M]; 0 for slots that are not known."""
    return (weights.nan_to_num(0.0)[showings.slots] * showings.context).sum(dim=-1)


def _relative_to_list(logits: Tensor, *, where: Tensor) -> Tensor:
    """Examination of places against the most examined one of their list, float [..., L]; 1 at places that are not.

    >>> two = torch.tensor([True, True, False])
    >>> _relative_to_list(torch.tensor([0.25, 0.5, 9.0]).log(), where=two).tolist()
    [0.5, 1.0, 1.0]
    """
    logs = log_softmax(logits, where=where).masked_fill(~where, -torch.inf)
    highest = logs.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(logits.dtype).min)
    return (logs - highest).exp().masked_fill(~where, 1.0)


def _learnt_context(fitted: FittedRanker) -> Context | None:
    """What a ranker by `ContextDla` knew of showings; None for one by another learner."""
    learnt = fitted.settings.get("context")
    return Context(tuple(learnt["of_list"]), tuple(learnt["of_previous"])) if isinstance(learnt, dict) else None


def _scale_of(fitted: FittedRanker) -> tuple[Tensor, Tensor]:
    """Mean and spread that a ranker's context was learnt with."""
    return fitted.state[f"{CORRECTION}mean"], fitted.state[f"{CORRECTION}spread"]


def examination_of_places(fitted: FittedRanker, lists: ClickLists) -> npt.NDArray[np.float64]:
    """Say how likely each place of each list is looked at, against the most examined place of its list.

    Parameters
    ----------
    fitted
        By `ContextDla`, or by a learner that knows examination by slot alone.
    lists
        Of any log with the same slots and, for `ContextDla`, with its features.

    Returns
    -------
    array
        float64 [S, L], 1 at places that do not exist.

    Raises
    ------
    InvalidInputError
        If the ranker knows nothing of examination, or a slot is new to it.
    """
    context = _learnt_context(fitted)
    if context is not None:
        showings, numbered = number_showings(lists, context, _scale_of(fitted))
        weights = fitted.state[f"{CORRECTION}weights"]
        _refuse_unknown(showings.slots, ~weights[:, 0].isnan())
        logits = _logits(weights, showings)[torch.from_numpy(numbered.slots)]
    elif fitted.propensities is not None:
        theta, slots = torch.from_numpy(fitted.propensities), torch.from_numpy(lists.slots)
        _refuse_unknown(slots[torch.from_numpy(lists.mask)], ~theta.isnan())
        logits = theta[slots.where(torch.from_numpy(lists.mask), 0)].clamp_min(NEGLIGIBLE).log()
    else:
        raise InvalidInputError(f"a ranker of {fitted.settings.get('learner')} knows nothing of examination; use DLA")
    found: npt.NDArray[np.float64] = _relative_to_list(logits, where=torch.from_numpy(lists.mask)).numpy()
    return found


def _refuse_unknown(slots: Tensor, known: Tensor) -> None:
    for slot in slots.unique().tolist():
        if slot >= len(known) or not known[slot]:
            raise InvalidInputError(
                f"slot {slot} is shown and nothing was learnt about it; learn from a log that has it"
            )


def _by_slot(lists: ClickLists, examined: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean examination of each slot over its showings, float64 [K], 1 for the most examined slot of each group."""
    mask, groups = lists.mask, slot_groups(lists)
    shown = np.broadcast_to(lists.shown[:, None], mask.shape)[mask]
    slots, size = lists.slots[mask], len(groups)
    count = np.bincount(slots, shown, size)
    mean = np.divide(
        np.bincount(slots, shown * examined[mask], size), count, out=np.full(size, np.nan), where=count > 0
    )
    found: npt.NDArray[np.float64] = relative(torch.from_numpy(mean), torch.from_numpy(groups)).numpy()
    return found

"""Clicks that simulated users leave on judged lists: the only setting where the truth about bias is known.

Letters in shapes: n sessions, L places, N judged documents.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from rankers.ltr.models import NetworkRanker
from rankers.ltr.networks import Normaliser, RankingNetwork, Scorer
from training.ultr.lists import PADDING, ClickLists
from training.ultr.sessions import SessionCounter
from training.ultr.svmlight import JudgedLists

EXAMINED = (0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06)
"""Chance that a result of a web search is looked at, by position (eye tracking: Joachims et al., SIGIR 2005)."""
SESSIONS_AT_ONCE = 100_000


def examination_curve(places: int = 10, *, eta: float = 1.0) -> npt.NDArray[np.float64]:
    """Chance of examination by position, `EXAMINED` to the power of eta; beyond the tenth it falls as 1 / position.

    Parameters
    ----------
    places
        How many.
    eta
        Severity of the bias: 0 for none, 1 as measured.

    Returns
    -------
    array
        float64 [places].
    """
    beyond = EXAMINED[-1] * len(EXAMINED) / np.arange(len(EXAMINED) + 1, max(places, len(EXAMINED)) + 1)
    return np.asarray(np.concatenate([EXAMINED, beyond])[:places] ** eta, dtype=np.float64)


def attraction(
    labels: npt.NDArray[np.int64], *, noise: float = 0.1, highest: int | None = None
) -> npt.NDArray[np.float64]:
    """Chance of a click on an examined document: noise + (1 - noise) (2^y - 1) / (2^ymax - 1).

    Chapelle, Metzler, Zhang, Grinspan, "Expected reciprocal rank", CIKM 2009, with noise as in Ai et al., SIGIR 2018.

    Parameters
    ----------
    labels
        Grades y, int64 [N].
    noise
        Chance for an irrelevant document.
    highest
        ymax; the highest label if not given.

    Returns
    -------
    array
        float64 [N].

    Examples
    --------
    >>> attraction(np.array([0, 1, 2]), noise=0.1).round(3).tolist()  # 0.1 + 0.9 * 1 / 3
    [0.1, 0.4, 1.0]
    """
    top = int(labels.max(initial=1)) if highest is None else highest
    return np.asarray(noise + (1 - noise) * (2.0**labels - 1) / (2.0**top - 1), dtype=np.float64)


class ClickModel(Protocol):
    """How users click."""

    def clicks(
        self, attractive: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """Draw the clicks of n sessions.

        `attractive` float64 [n, L] is the chance of a click once examined, 0 after the end of a list; `slots` int64
        [n, L] where each place is examined. The result is bool [n, L].
        """
        ...


@dataclass(frozen=True, slots=True)
class PositionBased:
    """P(click) = examination[slot] * attraction (Richardson, Dominowska, Ragno, WWW 2007)."""

    examination: npt.NDArray[np.float64]

    def clicks(
        self, attractive: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """See `ClickModel`."""
        return np.less(generator.random(attractive.shape), self.examination[slots] * attractive)


@dataclass(frozen=True, slots=True)
class Trust:
    """Position-based, but users trust high positions and click what they examined there even if it is irrelevant.

    P(click | examined, relevant) = 1 - (rank + 1) / 100 and P(click | examined, irrelevant) = 0.65 / rank (Agarwal et
    al., WWW 2019; these values: Vardasbi, Oosterhuis, de Rijke, CIKM 2020). Relevant with a chance of the attraction.
    """

    examination: npt.NDArray[np.float64]

    def affine(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give slope and offset by slot: P(click) = slope * relevance + offset."""
        rank = np.arange(1, len(self.examination) + 1)
        false = 0.65 / rank
        true = np.maximum(1 - (rank + 1) / 100, false)
        return self.examination * (true - false), self.examination * false

    def clicks(
        self, attractive: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """See `ClickModel`."""
        slope, offset = self.affine()
        chance = (slope[slots] * attractive + offset[slots]) * (attractive > 0)
        return np.less(generator.random(attractive.shape), chance)


@dataclass(frozen=True, slots=True)
class Cascade:
    """Top down; after a click the user goes on with a chance of `onward` (0: the cascade model, Craswell, WSDM
    2008)."""

    onward: float = 0.0

    def clicks(
        self, attractive: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """See `ClickModel`; the order of places is that of slots."""
        clicked = np.zeros(attractive.shape, dtype=np.bool_)
        reading = np.ones(len(attractive), dtype=np.bool_)
        sessions = np.arange(len(attractive))
        for place in np.argsort(slots, axis=1, kind="stable").T:
            hit = reading & (generator.random(len(sessions)) < attractive[sessions, place])
            clicked[sessions, place] = hit
            reading &= ~hit | (generator.random(len(sessions)) < self.onward)
        return clicked


@dataclass(frozen=True, slots=True)
class UserBrowsing:
    """Examination by position and by distance from the last click (Dupret, Piwowarski, SIGIR 2008).

    P(examined) = sqrt(examination[slot] * examination[distance - 1]); before the first click the distance is the
    position.
    """

    examination: npt.NDArray[np.float64]

    def clicks(
        self, attractive: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """See `ClickModel`; the order of places is that of slots."""
        clicked = np.zeros(attractive.shape, dtype=np.bool_)
        last = np.full(len(attractive), -1, dtype=np.int64)
        sessions = np.arange(len(attractive))
        for place in np.argsort(slots, axis=1, kind="stable").T:
            slot = slots[sessions, place]
            examined = np.sqrt(self.examination[slot] * self.examination[np.maximum(slot - last - 1, 0)])
            hit = generator.random(len(sessions)) < examined * attractive[sessions, place]
            clicked[sessions, place] = hit
            last[hit] = slot[hit]
        return clicked


def fit_production(judged: JudgedLists, *, share: float = 0.01, least: int = 3, seed: int) -> NetworkRanker:
    """Fit a weak production ranker: a linear pairwise support vector machine on the labels of few queries.

    min_w |w|^2 / 200 + mean over pairs of max(0, 1 - w (x_i - x_j))^2: the logging rankers of Joachims, Swaminathan,
    Schnabel, WSDM 2017, and of Ai et al., SIGIR 2018 (on 1% of the queries), with a squared hinge.

    Parameters
    ----------
    judged
        Labels of the queries drawn are used, features of all.
    share
        Share of the queries to draw, of those with two different labels.
    least
        At least as many.
    seed
        Of the draw.

    Returns
    -------
    NetworkRanker
        Linear; better than chance, and far from the best.
    """
    import torch
    from scipy.optimize import minimize

    normaliser = Normaliser.fit(judged.features)
    values = normaliser(torch.from_numpy(judged.features)).double().numpy()
    spans = [slice(a, b) for a, b in itertools.pairwise(judged.starts()) if np.ptp(judged.labels[a:b]) > 0]
    drawn = np.random.default_rng(seed).permutation(len(spans))[: max(least, round(share * len(spans)))]
    pairs = np.concatenate([_pairs(values[spans[i]], judged.labels[spans[i]]) for i in drawn])

    def objective(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        short = np.maximum(0.0, 1.0 - pairs @ weights)
        gradient = weights / 100 - 2 * pairs.T @ short / len(pairs)
        return float(weights @ weights / 200 + (short**2).mean()), gradient

    found = minimize(objective, np.zeros(values.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    scorer = Scorer(normaliser.width, ())
    weights = torch.from_numpy(found.x[None]).float()
    scorer.load_state_dict({"layers.0.weight": weights, "layers.0.bias": torch.zeros(1)})
    return NetworkRanker(RankingNetwork(normaliser, scorer), judged.feature_names)


def _pairs(values: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    better, worse = np.nonzero(labels[:, None] > labels[None, :])
    return values[better] - values[worse]


def shown_lists(judged: JudgedLists, scores: npt.NDArray[np.float64], *, places: int = 10) -> ClickLists:
    """The list a ranker shows for each query, with nothing clicked yet.

    Parameters
    ----------
    judged
        What there is to show.
    scores
        float64 [N].
    places
        L, how many are shown at most.

    Returns
    -------
    ClickLists
        One list for each query; slots are positions.
    """
    if scores.shape != judged.labels.shape:
        raise InvalidInputError(f"{len(judged.labels)} documents need a score each, got shape {scores.shape}")
    starts = judged.starts()
    rows = np.full((len(judged.query_ids), places), PADDING, dtype=np.int64)
    for query, (start, end) in enumerate(itertools.pairwise(starts)):
        best = start + np.argsort(-scores[start:end], kind="stable")[:places]
        rows[query, : len(best)] = best
    slots = np.broadcast_to(np.arange(places), rows.shape)
    return ClickLists(
        features=judged.features,
        feature_names=judged.feature_names,
        rows=rows,
        queries=np.arange(len(rows), dtype=np.int64),
        slots=np.ascontiguousarray(slots, dtype=np.int64),
        shown=np.zeros(len(rows), dtype=np.int64),
        clicks=np.zeros(rows.shape, dtype=np.int64),
    )


def simulate_clicks(
    lists: ClickLists,
    attractive: npt.NDArray[np.float64],
    model: ClickModel,
    *,
    sessions: int,
    seed: int,
    patterns: bool = True,
) -> ClickLists:
    """Let users come for random lists, and count their clicks.

    Parameters
    ----------
    lists
        What is shown; clicks they already have stay.
    attractive
        float64 [N], chance of a click on each row of the features once examined.
    model
        How users click.
    sessions
        How many come; each for a list drawn uniformly.
    seed
        Of all draws.
    patterns
        Whether to keep which places were clicked together.

    Returns
    -------
    ClickLists
        Collapsed; memory does not grow with sessions.
    """
    generator = np.random.default_rng(seed)
    counter = SessionCounter(lists, patterns=patterns)
    chances = np.where(lists.mask, attractive[lists.rows], 0.0)
    for start in range(0, sessions, SESSIONS_AT_ONCE):
        numbers = generator.integers(len(lists.rows), size=min(SESSIONS_AT_ONCE, sessions - start))
        counter.add(numbers, model.clicks(chances[numbers], lists.slots[numbers], generator))
    return counter.counted()


def simulate_clicks_by_place(
    lists: ClickLists,
    attractive: npt.NDArray[np.float64],
    examination: npt.NDArray[np.float64],
    *,
    sessions: int,
    seed: int,
    patterns: bool = True,
) -> ClickLists:
    """Let position-based users come whose examination depends on more than the slot: on the list, on neighbours.

    Parameters
    ----------
    lists
        What is shown; clicks they already have stay.
    attractive
        float64 [N], chance of a click on each row of the features once examined.
    examination
        float64 [S, L], chance that each place of each list is looked at.
    sessions
        How many come; each for a list drawn uniformly.
    seed
        Of all draws.
    patterns
        Whether to keep which places were clicked together.

    Returns
    -------
    ClickLists
        Collapsed; slots are those of `lists`.
    """
    numbered = replace(lists, slots=np.arange(lists.rows.size).reshape(lists.rows.shape))
    users = PositionBased(examination.reshape(-1))
    clicked = simulate_clicks(numbered, attractive, users, sessions=sessions, seed=seed, patterns=patterns)
    return replace(clicked, slots=lists.slots)

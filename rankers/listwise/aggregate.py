"""Outcomes of windows combined into one ranking with comparable scores.

Windows become a matrix of pair wins, float64 [N, N]: `wins[i, j]` is how often i was put before j. Win rate, PageRank,
Bradley-Terry and Elo turn it into one number per candidate, as JointRank does (arXiv 2506.22262). Every function treats
candidates alike, whatever their place in the list, and gives finite numbers for candidates nothing is known about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError
from rankers.listwise.windows import Order, Verdict, Window, WindowOutcome
from rankers.types import ScoreKind

Wins = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]

_EXACT = 1e-10
_MOST_STEPS = 200
_DECIMALS = 9


def pair_wins(windows: Sequence[Window], outcomes: Sequence[WindowOutcome], count: int, *, soft: bool = False) -> Wins:
    """Count who was put before whom: each window of n candidates gives all its n(n-1)/2 pairs.

    Soft wins are those of the Bradley-Terry model of one window: wins[i, j] += 1 / (1 + exp(logit_j - logit_i)).

    Parameters
    ----------
    windows
        Candidates in the order shown.
    outcomes
        One per window. A window that failed says nothing, and one without logits no soft wins.
    count
        Number of candidates, N.
    soft
        Whether a pair's win is shared by its logits instead of given to the first.

    Returns
    -------
    float64 [N, N]
        At least 0; each pair of a window adds 1 to wins[i, j] + wins[j, i].

    Examples
    --------
    >>> pair_wins([(0, 1, 2)], [WindowOutcome((2, 0, 1))], 3)
    array([[0., 1., 0.],
           [0., 0., 0.],
           [1., 1., 0.]])
    >>> pair_wins([(1, 0)], [WindowOutcome((1, 0), logits=(np.log(3), 0.0))], 2, soft=True).round(2)
    array([[0.  , 0.25],
           [0.75, 0.  ]])
    """
    wins = np.zeros((count, count))
    for window, outcome in zip(windows, outcomes, strict=True):
        if outcome.failure or (soft and not outcome.logits):
            continue
        if soft:
            shown, logits = np.array(window), np.array(outcome.logits)
            won = _logistic(logits[:, None] - logits)
            np.fill_diagonal(won, 0.0)
        else:
            shown = np.array(outcome.order)
            won = np.triu(np.ones((len(shown), len(shown))), 1)
        wins[np.ix_(shown, shown)] += won
    return wins


def win_rate(wins: Wins) -> Scores:
    """Share of its comparisons that a candidate won: sum_j wins[i, j] / sum_j (wins[i, j] + wins[j, i]).

    Source: JointRank, arXiv 2506.22262, "average win rate".

    Parameters
    ----------
    wins
        float64 [N, N], at least 0.

    Returns
    -------
    float64 [N]
        In [0, 1]; 1/2 for a candidate that was never compared.

    Examples
    --------
    >>> win_rate(np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).round(3)
    array([0.75 , 0.333, 0.   ])
    """
    won = wins.sum(axis=1)
    games = won + wins.sum(axis=0)
    return np.where(games > 0, won / np.where(games > 0, games, 1.0), 0.5)


def pagerank(wins: Wins, *, damping: float = 0.85) -> Scores:
    """Share of time that a walk from losers to those who beat them spends at a candidate.

    From j the walk goes on to i with probability damping * wins[i, j] / sum_i wins[i, j], and otherwise, or where
    nobody beat j, to any candidate. The share x = damping * M x + (1 - damping) / N is solved for, not iterated.

    Source: "The PageRank Citation Ranking: Bringing Order to the Web", Stanford InfoLab 1999-66, section 2.

    Parameters
    ----------
    wins
        float64 [N, N], at least 0.
    damping
        From 0 to below 1.

    Returns
    -------
    float64 [N]
        In [0, 1], sum 1.

    Raises
    ------
    ConfigError
        If `damping` is out of range.

    Examples
    --------
    >>> shares = pagerank(np.array([[0.0, 1.0], [0.0, 0.0]]), damping=0.5)  # x0 = 1/4 + x1/2 + x0/4, x1 = 1/4 + x0/4
    >>> shares.round(3)
    array([0.6, 0.4])
    """
    if not 0 <= damping < 1:
        raise ConfigError(f"damping is {damping}, must be from 0 to below 1")
    count = len(wins)
    lost = wins.sum(axis=0)
    onward = np.where(lost > 0, wins / np.where(lost > 0, lost, 1.0), 1.0 / count)
    shares = np.linalg.solve(np.eye(count) - damping * onward, np.full(count, (1 - damping) / count))
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def bradley_terry(wins: Wins, *, prior_wins: float = 0.5) -> Scores:
    """Log-strengths s under which the wins are most probable, where P(i before j) = 1 / (1 + exp(s_j - s_i)).

    Who never lost, or was never compared with the rest, has no finite strength of greatest likelihood. So everybody
    also plays a virtual opponent of strength 0 and wins `prior_wins` and loses as many:
    maximise sum_ij wins[i, j] log P(i before j) + prior_wins * sum_i (log P(i before 0) + log P(0 before i)).
    That is strictly concave, has one finite maximum, and ties groups of candidates that were never compared with each
    other to one scale. Newton's method climbs to it: a step v, of which the widest difference between two candidates
    is d, is taken log(1 + d) / d of the way, which always gains and comes near a whole step at the end. The result is
    then shifted to mean 0.

    Source: Bradley, Terry, Biometrika 1952; Hunter, "MM algorithms for generalized Bradley-Terry models", Annals of
    Statistics 2004 (likelihood, when it has a maximum, Newton's method); Bach, "Self-concordant analysis for logistic
    regression", Electronic Journal of Statistics 2010 (the length of a step).

    Parameters
    ----------
    wins
        float64 [N, N], at least 0, fractions allowed.
    prior_wins
        Virtual wins and losses of every candidate, above 0.

    Returns
    -------
    float64 [N]
        Log-odds against the average candidate, mean 0.

    Raises
    ------
    ConfigError
        If `prior_wins` is not above 0.

    Examples
    --------
    >>> strengths = bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]))
    >>> strengths.round(4)
    array([ 0.4744, -0.4744])
    >>> s = strengths[0]  # the wins that were expected are those that were seen, virtual ones included
    >>> round(4 / (1 + math.exp(-2 * s)) + 1 / (1 + math.exp(-s)), 9)
    3.5
    """
    if not prior_wins > 0:
        raise ConfigError(f"prior_wins is {prior_wins}, must be above 0 for every strength to be finite")
    games = wins + wins.T
    won = wins.sum(axis=1) + prior_wins
    strengths = np.zeros(len(wins))
    for _ in range(_MOST_STEPS):
        ahead, ahead_of_virtual = _logistic(strengths[:, None] - strengths), _logistic(strengths)
        slope = won - (games * ahead).sum(axis=1) - 2 * prior_wins * ahead_of_virtual
        pull = games * ahead * ahead.T
        curvature = np.diag(pull.sum(axis=1) + 2 * prior_wins * ahead_of_virtual * (1 - ahead_of_virtual)) - pull
        step = np.linalg.solve(curvature, slope)
        widest = max(step.max(), 0.0) - min(step.min(), 0.0)
        if widest < _EXACT:
            break
        strengths += step * (np.log1p(widest) / widest)
    return _centred(strengths)


def elo(wins: Wins, *, k_points: float = 32.0, rounds: int = 100) -> Scores:
    """Elo ratings where all games are played at once, again in every round, so that their order does not matter.

    r_i += k * mean over the games of i of (win - 1 / (1 + 10^((r_j - r_i) / 400))), from 0, all i at the same time.
    Few rounds stay near the win rate, many approach Bradley-Terry; nobody gets further than k * rounds points.

    Source: Elo, "The Rating of Chessplayers", 1978; the simultaneous update replaces the order of play, which the
    windows of one query do not have.

    Parameters
    ----------
    wins
        float64 [N, N], at least 0.
    k_points
        Points that a surprising win gains, above 0; 32 is customary.
    rounds
        How often all games are played, at least 1.

    Returns
    -------
    float64 [N]
        Ratings as log-odds (points * ln(10) / 400) against the average candidate, mean 0.

    Raises
    ------
    ConfigError
        If `k_points` or `rounds` is out of range.

    Examples
    --------
    >>> elo(np.array([[0.0, 1.0], [0.0, 0.0]]), rounds=1) * 400 / np.log(10)  # 32 * (1 - 1/2)
    array([ 16., -16.])
    """
    if not 0 < k_points <= 400:
        raise ConfigError(f"k_points is {k_points}, must be above 0 and at most 400")
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}, must be at least 1")
    games = wins + wins.T
    played = games.sum(axis=1)
    rate = k_points * math.log(10) / 400 / np.where(played > 0, played, 1.0)
    ratings = np.zeros(len(wins))
    for _ in range(rounds):
        expected = games * _logistic(ratings[:, None] - ratings)
        ratings += rate * (wins - expected).sum(axis=1)
    return _centred(ratings)


AGGREGATES: Mapping[str, tuple[Callable[[Wins], Scores], ScoreKind]] = {
    "bradley-terry": (bradley_terry, ScoreKind.PREFERENCE),
    "win-rate": (win_rate, ScoreKind.SHARE),
    "pagerank": (pagerank, ScoreKind.SHARE),
    "elo": (elo, ScoreKind.PREFERENCE),
}
"""Name of each way from pair wins to scores, and what its scores mean."""


def window_scores(
    windows: Sequence[Window],
    logits: Sequence[Sequence[float]],
    count: int,
    *,
    method: Literal["bradley-terry", "average"] = "bradley-terry",
) -> Scores:
    """Give every candidate one score from the raw logits of any windows, comparable over the whole list.

    Logits of a window are comparable with each other only. "bradley-terry" takes the pairs of each window as soft wins.
    "average" takes the scores s that explain the logits best up to one constant c per window: minimise
    sum_w sum_i (logit_wi - s_i - c_w)^2. With c eliminated, that is the Laplacian system
    sum_w (I_w - 1_w 1_w^T / n_w) s = sum_w (logit_w - mean(logit_w)).

    Parameters
    ----------
    windows
        Candidates in the order shown.
    logits
        One sequence per window, aligned with the order shown; an empty one says nothing.
    count
        Number of candidates, N.
    method
        "bradley-terry" is bounded by how often candidates met, "average" keeps the scale of the logits.

    Returns
    -------
    float64 [N]
        Mean 0. "average" gives each set of candidates that no window connects with the rest a mean of 0 of its own.

    Raises
    ------
    ConfigError
        If `method` is none.

    Examples
    --------
    >>> window_scores([(0, 1), (1, 2)], [(5.0, 3.0), (9.0, 8.0)], 3, method="average").round(3)  # gaps of 2 and 1
    array([ 1.667, -0.333, -1.333])
    """
    if method == "bradley-terry":
        outcomes = [WindowOutcome(window, tuple(row)) for window, row in zip(windows, logits, strict=True)]
        return bradley_terry(pair_wins(windows, outcomes, count, soft=True))
    if method != "average":
        raise ConfigError(f"method is {method!r}, must be 'bradley-terry' or 'average'")
    laplacian, centred = np.zeros((count, count)), np.zeros(count)
    for window, row in zip(windows, logits, strict=True):
        if len(row):
            shown, values = np.array(window), np.array(row, dtype=np.float64)
            laplacian[np.ix_(shown, shown)] += np.eye(len(shown)) - 1 / len(shown)
            centred[shown] += values - values.mean()
    # The pseudo-inverse has no part along the null space, which is the constant on each connected set.
    return np.asarray(np.linalg.pinv(laplacian, hermitian=True) @ centred, dtype=np.float64)


def verdict(scores: npt.ArrayLike, *, score_kind: ScoreKind, ties: Order) -> Verdict:
    """Order candidates by score.

    Parameters
    ----------
    scores
        float [N], one per candidate.
    score_kind
        What they mean.
    ties
        Every candidate once; among equal scores, to nine decimals, who comes first here comes first.

    Returns
    -------
    Verdict
        Score descending.

    Examples
    --------
    >>> verdict([0.1, 0.7, 0.7], score_kind=ScoreKind.SHARE, ties=(0, 2, 1)).order
    (2, 1, 0)
    """
    # Sums in another order differ in the last bits; that must not decide who comes first.
    rounded = np.round(np.asarray(scores, dtype=np.float64), _DECIMALS)
    order = tuple(sorted(ties, key=lambda candidate: -rounded[candidate]))
    return Verdict(order, tuple(float(rounded[candidate]) for candidate in order), score_kind)


def _logistic(x: Scores) -> Scores:
    # exp(700) is still finite.
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))), dtype=np.float64)


def _centred(x: Scores) -> Scores:
    return np.asarray(x - x.mean(), dtype=np.float64)

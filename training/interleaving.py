"""What clicks on interleaved rankings say: credit, a test, simulation, and the verdict of a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from rankers.interleaving import draft
from training.clicks.filters import FilterRules
from training.clicks.models.model import ClickModel
from training.clicks.models.sampling import draw_clicks

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0

VOTES = """
WITH arms AS (SELECT id, any_value(arms) AS arms FROM impressions WHERE list_has_any(arms, $names) GROUP BY id),
credited AS (
    SELECT k.number, any_value(CASE WHEN $by_user THEN coalesce(k.actor, k.id) ELSE k.id END) AS voter,
        count(*) FILTER (WHERE a.arms[c.place] = $names[1]) AS first,
        count(*) FILTER (WHERE a.arms[c.place] = $names[2]) AS second
    FROM kept k JOIN arms a USING (id) LEFT JOIN clicked c ON c.impression = k.number GROUP BY k.number),
votes AS (SELECT sign(sum(first) - sum(second)) AS vote FROM credited GROUP BY voter)
SELECT vote, count(*) FROM votes GROUP BY vote
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of two arms people prefer.

    `wins` votes were for the first arm, `losses` for the second, `ties` for neither. `preference` is the share of wins
    with ties counted as half, 0.5 for arms that are equally good, and lies between `low` and `high` with 95 %
    confidence. `p_value` is that of a two-sided sign test of wins against losses.
    """

    wins: int
    losses: int
    ties: int
    preference: float
    low: float
    high: float
    p_value: float


def credit(arms: Sequence[str], clicked: Sequence[bool], *, names: tuple[str, str]) -> int:
    """Vote of one impression: the arm with more clicks on its places gets it.

    Parameters
    ----------
    arms
        Arm of each place.
    clicked
        Whether each place was clicked.
    names
        The arms.

    Returns
    -------
    int
        1 for the first, -1 for the second, 0 for neither.

    Examples
    --------
    >>> credit(["", "x", "y", "x"], [True, True, False, False], names=("x", "y"))
    1
    """
    clicks = [arm for arm, click in zip(arms, clicked, strict=True) if click]
    difference = clicks.count(names[0]) - clicks.count(names[1])
    return (difference > 0) - (difference < 0)


def verdict(wins: int, losses: int, ties: int) -> Verdict:
    """Test votes: a sign test, and a percentile bootstrap of the preference.

    Parameters
    ----------
    wins
        Votes for the first arm.
    losses
        Votes for the second.
    ties
        Votes for neither.

    Returns
    -------
    Verdict
        With interval and p.

    Raises
    ------
    InvalidInputError
        If there is no vote.
    """
    from scipy import stats

    votes = wins + losses + ties
    if not votes:
        raise InvalidInputError("no interleaved impression was read; a verdict needs at least one vote")
    drawn = np.random.default_rng(SEED).multinomial(votes, np.array([wins, losses, ties]) / votes, size=RESAMPLES)
    low, high = np.quantile((drawn[:, 0] + drawn[:, 2] / 2) / votes, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    p_value = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return Verdict(wins, losses, ties, (wins + ties / 2) / votes, float(low), float(high), p_value)


def read_interleaving(
    impressions: Sequence[Path],
    events: Sequence[Path],
    *,
    names: tuple[str, str],
    by_user: bool = False,
    rules: FilterRules | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    temp_dir: Path | None = None,
    memory_limit_mb: int = 1024,
) -> Verdict:
    """Decide between two arms from a click log, filtered as for training.

    Parameters
    ----------
    impressions
        Files of impressions; those with a place of one of the arms count, clicked or not.
    events
        Files of events.
    names
        The arms; wins are the first one's.
    by_user
        Whether a user, or else a session, has one vote instead of one per impression. Impressions of one user are not
        independent, and where few users see much, the test is too sure of itself.
    rules
        What to filter.
    since
        The first moment of the period.
    until
        The end of the period.
    temp_dir
        Folder for what does not fit in memory.
    memory_limit_mb
        MiB that DuckDB may use.

    Returns
    -------
    Verdict
        With interval and p.

    Raises
    ------
    InvalidInputError
        If no impression shows one of the arms.
    """
    from training.clicks.filtered_log import open_filtered_log

    with open_filtered_log(
        impressions, events, rules=rules, since=since, until=until, temp_dir=temp_dir, memory_limit_mb=memory_limit_mb
    ) as log:
        votes = dict(log.connection.execute(VOTES, {"names": list(names), "by_user": by_user}).fetchall())
    return verdict(votes.get(1, 0), votes.get(-1, 0), votes.get(0, 0))


def simulate_interleaving(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    model: ClickModel,
    *,
    sessions: int,
    seed: int = SEED,
) -> Verdict:
    """Interleave two rankers for simulated users.

    Parameters
    ----------
    first
        int64 [Q, L], rows of the model as one ranker orders them for each query.
    second
        int64 [Q, L], the same of the other.
    model
        How users click.
    sessions
        How many; each has a random query.
    seed
        The same seed gives the same verdict.

    Returns
    -------
    Verdict
        Wins are those of `first`.

    Raises
    ------
    InvalidInputError
        If the shapes differ or there is no session.
    """
    if first.shape != second.shape or not first.size:
        raise InvalidInputError(f"rankings have shapes {first.shape} and {second.shape}; both need the same queries")
    generator, coins, names = np.random.default_rng(seed), Random(seed), ("first", "second")
    queries = generator.integers(len(first), size=sessions)
    shown = np.empty((sessions, first.shape[1]), dtype=np.int64)
    team = np.zeros(shown.shape, dtype=np.int64)
    for session, query in enumerate(queries):
        order, arms = draft(first[query].tolist(), second[query].tolist(), names=names, generator=coins)
        shown[session] = order[: shown.shape[1]]
        team[session] = [(arm == "first") - (arm == "second") for arm in arms[: shown.shape[1]]]
    slots = np.broadcast_to(np.arange(shown.shape[1]), shown.shape)
    votes = np.sign((team * draw_clicks(model, shown, slots, generator)).sum(axis=1))
    return verdict(int((votes > 0).sum()), int((votes < 0).sum()), int((votes == 0).sum()))

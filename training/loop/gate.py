"""Whether a candidate may serve: every check says what was found, what was asked for, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.clicks.filters import FilterReport, Reason
from training.counterfactual import PolicyDifference
from training.loop.settings import ClickGate, JudgedGate
from training.ultr.drift import CurveDrift

NOT_HARMFUL = {Reason.DUPLICATE, Reason.REPEATED_CLICK, Reason.OUTSIDE_PERIOD, Reason.REMOVED_IMPRESSION}
"""Reasons that say nothing against a log: somebody sent twice, or a time was not asked for, of a click or its list."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold; `found` and `needed` are for people to read."""

    name: str
    holds: bool
    found: str
    needed: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate may serve; it may if every check holds."""

    checks: tuple[Check, ...]

    @property
    def promoted(self) -> bool:
        """Whether all hold."""
        return all(check.holds for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """What speaks against it."""
        return [f"{check.name}: {check.found}, needed {check.needed}" for check in self.checks if not check.holds]


def check_log(
    report: FilterReport, *, sessions: int, clicks: int, held_out: FilterReport, gate: ClickGate
) -> list[Check]:
    """Whether there is enough to learn from, and whether both parts of the log can be believed.

    Parameters
    ----------
    report
        What the filters left out of the part to learn from.
    sessions
        To learn from.
    clicks
        To learn from.
    held_out
        What the filters left out of the part that decides.
    gate
        What is asked for.

    Returns
    -------
    list of Check
        Four.
    """
    others = sum(each.count for each in report.removed if each.reason is Reason.OTHER_FEATURES)
    found = f"{sessions:,}" + (f", and {others:,} {Reason.OTHER_FEATURES} of the stage" if others else "")
    return [
        Check("enough sessions", sessions >= gate.min_sessions, found, f"at least {gate.min_sessions:,}"),
        Check("enough clicks", clicks >= gate.min_clicks, f"{clicks:,}", f"at least {gate.min_clicks:,}"),
        _check_believed("a log that can be believed", report, gate),
        _check_believed("a held-out log that can be believed", held_out, gate),
    ]


def _check_believed(name: str, report: FilterReport, gate: ClickGate) -> Check:
    removed = sum(each.count for each in report.removed if each.table == "events" and each.reason not in NOT_HARMFUL)
    share = removed / max(removed + report.events_kept, 1)
    return Check(
        name,
        share <= gate.max_removed,
        f"{share:.1%} of the events left out as bots or impossible",
        f"at most {gate.max_removed:.0%}",
    )


def check_identified(reasons: Sequence[str]) -> Check:
    """Whether position and relevance can be told apart in this log; `reasons` say why not."""
    return Check("position and relevance can be told apart", not reasons, "; ".join(reasons) or "yes", "yes")


def check_shown_order(share: float) -> Check:
    """Whether debiasing found anything that the order that was shown does not have; `share` of its gain is there."""
    return Check(
        "the shown order leaves something to gain",
        share < 1,
        f"it has {share:.0%} of what a debiased ranker gains over a random order",
        "less than 100%",
    )


def check_curve(
    candidate: npt.NDArray[np.float64] | None, before: npt.NDArray[np.float64] | None, gate: ClickGate
) -> Check:
    """Whether the examination curve is still what it was: people do not change their ways overnight, bots do.

    Parameters
    ----------
    candidate
        float64 [K] or None, relative to the most examined slot.
    before
        Of the model that is live, or of the last one before it that has a curve.
    gate
        What is asked for.

    Returns
    -------
    Check
        Holds where there is nothing to compare, and says so.
    """
    name, needed = "examination as before", f"at most {gate.max_curve_change:.3f}"
    if candidate is None or before is None:
        whose = "the candidate was learned without one" if candidate is None else "no model that was live has one"
        return Check(name, True, f"not compared: {whose}", needed)
    shared = min(len(candidate), len(before))
    change = float(np.nanmean(np.abs(candidate[:shared] - before[:shared])))
    return Check(name, change <= gate.max_curve_change, f"mean change {change:.3f}", needed)


def check_live(now: str | None, *, before: str | None, version: str, was_live: bool) -> Check:
    """Whether what a candidate was compared with is still live: a rollback is not to be undone.

    Parameters
    ----------
    now
        The version that is live, None if there is none.
    before
        The one that was live at the export.
    version
        The candidate's; it may be live already where a turn was interrupted.
    was_live
        Whether the candidate has been live.

    Returns
    -------
    Check
        Does not hold either where the candidate was live and something else is now.
    """
    return Check(
        "live as at the export",
        now == version or (now == before and not was_live),
        f"{now or 'nothing'} is live" + (", the candidate was before" if was_live and now != version else ""),
        f"{before or 'nothing'}, which it was compared with",
    )


def check_drift(drift: CurveDrift, gate: ClickGate) -> Check:
    """Whether people looked at lists in the held-out part of the log as they did in the part that was learned from."""
    return Check(
        "examination steady within the log",
        not drift.beyond(gate.max_curve_change),
        f"mean change {drift.change:.3f}, by chance up to {drift.by_chance:.3f}",
        f"at most {gate.max_curve_change:.3f}, or by chance",
    )


def check_clicks(difference: PolicyDifference, baseline: float, gate: ClickGate) -> Check:
    """Whether clicks that were not learned from say that the candidate is better than what serves now.

    Parameters
    ----------
    difference
        Candidate minus live.
    baseline
        Value of the live model.
    gate
        What is asked for.

    Returns
    -------
    Check
        Compares the lower bound of the difference, as a share of the baseline.
    """
    found, low = (value / baseline if baseline else 0.0 for value in (difference.difference, difference.low))
    return Check(
        "better by clicks",
        difference.better >= gate.confidence and found > gate.min_difference,
        f"{found:+.1%} [{low:+.1%}, {difference.high / baseline if baseline else 0.0:+.1%}], better in "
        f"{difference.better:.0%} of drawn logs",
        f"above {gate.min_difference:+.1%}, better in {gate.confidence:.0%}",
    )


def check_judged(name: str, difference: float, bound: float, gate: JudgedGate) -> Check:
    """Whether a judged collection says that the candidate is good enough.

    Parameters
    ----------
    name
        Of the collection.
    difference
        Mean over queries of candidate minus live.
    bound
        Its one-sided lower bound.
    gate
        What is asked for.

    Returns
    -------
    Check
        Compares the bound.
    """
    return Check(
        f"{gate.measure} on {name}",
        bound >= gate.min_difference,
        f"{difference:+.4f}, above {bound:+.4f} with {gate.confidence:.0%} confidence",
        f"bound at least {gate.min_difference:+.4f}",
    )


def decide(checks: Iterable[Check]) -> Decision:
    """Put checks together."""
    return Decision(tuple(checks))

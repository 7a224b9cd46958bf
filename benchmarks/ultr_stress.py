"""Where debiasing loses, and whether the loop's gate notices: `python -m benchmarks.ultr stress`.

The first turn as the loop takes it: learn from 70 % of the sessions, fall back to clicks as they are where debiasing
cannot be trusted, take clicks of trust off where people trust, and let all clicks decide against the order that was
shown, each query scored by rankers that have not learned from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.ultr_worlds import World, ndcg, oracle_world, strong_world, weak_world
from rankers.errors import InvalidInputError
from training.counterfactual import compare_policies, evaluate_policy
from training.loop.abstain import learn, reasons_to_abstain
from training.loop.evidence import examination_given, trust_given
from training.loop.gate import Check, check_clicks, check_shown_order
from training.loop.once import BY_RELEVANCE
from training.loop.settings import ClickGate
from training.ultr.dla import Dla
from training.ultr.ipw import Naive
from training.ultr.simulate import Cascade, ClickModel, PositionBased, Trust, UserBrowsing, examination_curve

CURVE = examination_curve()
LEARNT_FROM = 0.7
Case = tuple[Callable[..., World], ClickModel, int]
CASES: dict[str, Case] = {
    "weak ranker (no stress)": (weak_world, PositionBased(CURVE), 500),
    "strong incumbent": (strong_world, PositionBased(CURVE), 500),
    "near-oracle logger": (oracle_world, PositionBased(CURVE), 500),
    "5 sessions a list": (weak_world, PositionBased(CURVE), 5),
    "no bias": (weak_world, PositionBased(examination_curve(eta=0.0)), 500),
    "UBM clicks": (weak_world, UserBrowsing(CURVE), 500),
    "cascade clicks": (weak_world, Cascade(), 500),
    "clicks of trust": (weak_world, Trust(CURVE), 500),
}
"""Who made the lists, how users click, and sessions for each list."""


def run_case(data: Path, dataset: str, case: str, seed: int) -> dict[str, object]:
    make, users, per_list = CASES[case]
    world = make(data, dataset, seed=seed)
    sessions = per_list * len(world.shown.rows)
    learnt_from = round(LEARNT_FROM * sessions)
    lists = world.clicks(users, sessions=learnt_from, seed=2 * seed)
    decide_by = world.clicks(users, sessions=sessions - learnt_from, seed=2 * seed + 1)
    production = ndcg(world.test, world.production)
    naive, debiased = (learner.fit(lists, seed=seed).score(world.test.features) for learner in (Naive(), Dla()))
    reasons = reasons_to_abstain(lists)
    whole = replace(lists, shown=lists.shown + decide_by.shown, clicks=lists.clicks + decide_by.clicks, patterns=None)
    learned = learn(lists, "dla", unseen=whole, seed=seed)
    unseen, offsets = learned.unseen, None
    if unseen is None:
        raise AssertionError("nothing was learned for queries that were not seen")
    if learned.trusted_because:
        examined, offsets = trust_given(unseen.debiased)
    else:
        examined = examination_given(unseen.debiased)
    options: dict[str, Any] = {"offsets": offsets, "valuation": BY_RELEVANCE, "seed": seed}
    try:
        difference = compare_policies(whole, unseen.candidate, None, examined, **options)
        baseline = evaluate_policy(whole, None, examined, **options).value
        check = check_clicks(difference, baseline, ClickGate())
    except InvalidInputError as error:
        check = Check("better by clicks", False, str(error), "clicks that can tell")
    beatable = learned.shown_share is None or check_shown_order(learned.shown_share).holds
    promoted = check.holds and beatable and not reasons
    return {
        "dataset": dataset,
        "case": case,
        "seed": seed,
        "production": production,
        "naive": ndcg(world.test, naive),
        "dla": ndcg(world.test, debiased),
        "candidate": ndcg(world.test, learned.ranker.score(world.test.features)),
        "promoted": promoted,
        "gated": ndcg(world.test, learned.ranker.score(world.test.features)) if promoted else production,
        "reasons": [*reasons, *learned.naive_because],
        "trusted": bool(learned.trusted_because),
        "shown_share": learned.shown_share,
        "check": check.found,
    }

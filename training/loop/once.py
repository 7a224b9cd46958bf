"""One turn of the loop: export, read, train, evaluate, decide, promote, report."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from index.clicklog.interchange import export_log
from index.clicklog.store import SqlClickLog, open_click_log
from index.pipelines import Pipelines, load_pipelines
from rankers.errors import ConfigError, InvalidInputError
from rankers.ltr.features import FeatureSet, load_feature_set
from rankers.ltr.models import NumericRanker, load_numeric_ranker, load_propensities
from rankers.registry import ModelCard, ModelRegistry
from training.counterfactual import compare_policies, evaluate_policy
from training.loop.abstain import learn, reasons_to_abstain
from training.loop.evidence import (
    Evidence,
    examination_given,
    last_event,
    read_evidence,
    scores_of,
    split_moment,
    trust_given,
    whole_log,
)
from training.loop.gate import (
    Check,
    Decision,
    check_clicks,
    check_curve,
    check_drift,
    check_identified,
    check_judged,
    check_live,
    check_log,
    check_shown_order,
    decide,
)
from training.loop.judged import learned_stage, measure_judged
from training.loop.learners import learner_named
from training.loop.report import write_report
from training.loop.runs import FINISHED, Run, Runs
from training.loop.settings import LoopSettings
from training.policy_values import Gain, Valuation
from training.ultr.drift import curve_drift
from training.ultr.learner import FittedRanker
from training.ultr.lists import ClickLists

Scores: TypeAlias = npt.NDArray[np.float64]

CANDIDATE, DEBIASED, UNSEEN, LOG, REPORT = "candidate", "debiased", "unseen.npz", "log", "report.html"
MEASURE_CLICKS = "DCG of what is clicked when looked at"
BY_RELEVANCE = Valuation(gain=Gain.DCG)
"""Not by clicks to be expected: where all places are looked at, any order of the same documents gets as many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn led to: the decision, the version that is live now, and the page that says why."""

    run: str
    decision: Decision
    live: str | None
    report: Path


class Loop:
    """The loop of one model.

    Parameters
    ----------
    settings
        What to learn, from what, and what it must beat.
    on_progress
        Called with what is being done, how much of it is done, and how much there is; 0 of 0 where that is not known.
    """

    def __init__(
        self, settings: LoopSettings, *, on_progress: Callable[[str, int, int], None] = lambda *_: None
    ) -> None:
        self.settings = settings
        self.runs = Runs(settings.work_dir / settings.model)
        self._on_progress = on_progress

    def turn(self) -> Outcome:
        """Go around once, or go on with a turn that was interrupted.

        Returns
        -------
        Outcome
            The candidate serves if the decision is to promote it; otherwise nothing has changed.

        Raises
        ------
        NotReadyError
            If another process is at it.
        ConfigError
            If the configuration does not fit.
        InvalidInputError
            If the log has nothing to learn from.
        """
        with self.runs.locked():
            pipelines = load_pipelines(self.settings.config)
            try:
                return _Turn(self.settings, self.runs.current(), pipelines, self._on_progress).finish()
            finally:
                pipelines.close()

    def new_events(self) -> int:
        """How many events the log has that the last finished turn had not; all where it read another database."""
        finished = [run.steps["export"] for run in self.runs.all() if run.finished]
        log = open_click_log(self.settings.log)
        try:
            seen = finished[-1].get("last_event", 0) if finished and finished[-1].get("log") == _identity(log) else 0
            return log.count_events(since=seen)
        finally:
            log.close()


class _Turn:
    def __init__(
        self, settings: LoopSettings, run: Run, pipelines: Pipelines, on_progress: Callable[[str, int, int], None]
    ) -> None:
        self._settings = settings
        self._run = run
        self._pipelines = pipelines
        self._registry = ModelRegistry(pipelines.models_dir)
        self._on_progress = on_progress
        self._features: FeatureSet = load_feature_set(learned_stage(pipelines, settings.model).feature_set)
        self._known: Evidence | None = None

    def finish(self) -> Outcome:
        began_with = self._run.steps.get("export", {}).get("feature_set", self._features.id)
        if began_with != self._features.id:
            raise ConfigError(
                f"turn {self._run.name} was interrupted when the stage made {began_with!r}, it makes "
                f"{self._features.id!r} now; name that one again, or delete {self._run.folder} to begin anew"
            )
        steps: list[tuple[str, Callable[[], dict[str, Any]]]] = [
            ("export", self._export),
            ("train", self._train),
            ("evaluate", self._evaluate),
            ("decide", self._decide),
            ("promote", self._promote),
            ("report", self._report),
            (FINISHED, self._clean),
        ]
        for name, work in steps:
            self._on_progress(name, 0, 0)
            self._run.once(name, work)
        return Outcome(
            self._run.name,
            self._decision(),
            self._registry.live_version(self._settings.model),
            self._run.folder / REPORT,
        )

    def _export(self) -> dict[str, Any]:
        log = open_click_log(self._settings.log)
        try:
            live = self._registry.live_version(self._settings.model)
            folder, identity = self._run.folder / LOG, _identity(log)
            moved = export_log(log, folder)
        finally:
            log.close()
        since, window_days = None, self._settings.window_days
        if window_days is not None:
            since = datetime.now(UTC) - timedelta(days=window_days)
        try:
            split_at = split_moment(folder, self._settings.held_out, since=since, feature_set=self._features.id)
        except InvalidInputError:
            shutil.rmtree(self._run.folder)
            raise
        return {
            **asdict(moved),
            "log": identity,
            "last_event": last_event(folder),
            "feature_set": self._features.id,
            "since": since and since.isoformat(),
            "split_at": split_at.isoformat(),
            "live": live,
        }

    @property
    def _live(self) -> Path | None:
        """What was live when this turn began; it is what the candidate is compared with."""
        version = self._run.steps["export"]["live"]
        return self._registry.root / self._settings.model / version if version else None

    def _evidence(self) -> Evidence:
        if self._known is None:
            export = self._run.steps["export"]
            since = datetime.fromisoformat(export["since"]) if export.get("since") else None
            split_at = datetime.fromisoformat(export["split_at"])
            self._known = read_evidence(self._run.folder / LOG, split_at, self._features, since=since)
        return self._known

    def _train(self) -> dict[str, Any]:
        evidence = self._evidence()
        lists = evidence.learn
        gate = self._settings.gate.clicks
        sessions, clicks = lists.sessions, int(lists.clicks.sum())
        checks = [
            *check_log(evidence.report, sessions=sessions, clicks=clicks, held_out=evidence.decide_report, gate=gate),
            check_identified(reasons_to_abstain(lists)),
        ]
        found: dict[str, Any] = {
            "sessions": sessions,
            "clicks": clicks,
            "lists": len(lists.rows),
            "queries": len(np.unique(lists.queries)),
            "data_hash": evidence.data_hash,
            "checks": [asdict(check) for check in checks],
            "trained": all(check.holds for check in checks),
        }
        if found["trained"]:
            warm = self._live if self._settings.warm_start else None
            learned = learn(
                lists,
                self._settings.learner,
                warm_start=FittedRanker.load(warm) if warm else None,
                unseen=whole_log(evidence) if self._live is None else None,
                trust=self._trust_before(),
                seed=self._settings.seed,
                make=partial(learner_named, scorer=self._settings.scorer),
            )
            shutil.rmtree(self._run.folder / CANDIDATE, ignore_errors=True)
            learned.ranker.save(self._run.folder / CANDIDATE)
            shutil.rmtree(self._run.folder / DEBIASED, ignore_errors=True)
            learned.debiased.save(self._run.folder / DEBIASED)
            if learned.unseen is not None:
                scores = learned.unseen
                np.savez(self._run.folder / UNSEEN, candidate=scores.candidate, debiased=scores.debiased)
            found["naive_because"] = learned.naive_because
            found["trusted_because"] = learned.trusted_because
            if learned.shown_share is not None:
                found["checks"].append(asdict(check_shown_order(learned.shown_share)))
        return found

    def _evaluate(self) -> dict[str, Any]:
        if not self._run.steps["train"]["trained"]:
            return {"checks": [], "measures": {}}
        settings, evidence = self._settings, self._evidence()
        candidate_path = self._run.folder / CANDIDATE
        candidate = load_numeric_ranker(candidate_path)
        live = load_numeric_ranker(self._live) if self._live else None
        checks: list[Check] = []
        if self._live:
            checks.append(check_curve(load_propensities(candidate_path), self._curve_before(), settings.gate.clicks))
        drift = curve_drift(evidence.learn, evidence.decide, scores_of(candidate, evidence.decide), seed=settings.seed)
        checks.append(check_drift(drift, settings.gate.clicks))
        decide_by, scores, debiased = self._judged_by(evidence, candidate)
        live_scores = scores_of(live, decide_by) if live else None
        measures: dict[str, float] = {}
        offsets = None
        if self._run.steps["train"].get("trusted_because"):
            examined, offsets = trust_given(debiased)
        else:
            examined = examination_given(debiased)
        options: dict[str, Any] = {"offsets": offsets, "valuation": BY_RELEVANCE, "seed": settings.seed}
        try:
            value = evaluate_policy(decide_by, scores, examined, **options)
            baseline = evaluate_policy(decide_by, live_scores, examined, **options)
            difference = compare_policies(decide_by, scores, live_scores, examined, **options)
            checks.append(check_clicks(difference, baseline.value, settings.gate.clicks))
            measures |= {
                MEASURE_CLICKS: value.value,
                f"{MEASURE_CLICKS}, low": value.low,
                f"{MEASURE_CLICKS}, high": value.high,
                f"{MEASURE_CLICKS}, of what was live": baseline.value,
            }
        except InvalidInputError as error:
            checks.append(Check("better by clicks", False, str(error), "clicks that can tell"))
        for gate in settings.gate.collections:
            ours, theirs, bound = measure_judged(
                gate, self._pipelines, settings.model, candidate_path, on_progress=self._on_progress
            )
            checks.append(check_judged(gate.data.name, ours - theirs, bound, gate))
            measures |= {
                f"{gate.measure}, {gate.data.name}": ours,
                f"{gate.measure}, {gate.data.name}, of what was live": theirs,
            }
        return {"checks": [asdict(check) for check in checks], "measures": measures}

    def _curve_before(self) -> Scores | None:
        """Curve of what is live, or of the last model before it that was not learned from clicks as they are."""
        name, version = self._settings.model, self._run.steps["export"]["live"]
        parents = {card.version: card.parent for card, _ in self._registry.cards() if card.name == name}
        while version in parents:
            curve = load_propensities(self._registry.root / name / version)
            if curve is not None:
                return curve
            version = parents.pop(version)
        return None

    def _trust_before(self) -> str:
        """Why the model that is live was learned from clicks of trust; nothing if it was not."""
        if self._live is None or FittedRanker.load(self._live).settings.get("trust") is not True:
            return ""
        return "people were found to trust the order when the live model was learned, so clicks of trust were taken off"

    def _judged_by(self, evidence: Evidence, candidate: NumericRanker) -> tuple[ClickLists, Scores, Scores]:
        """Clicks that decide, with scores of the candidate and of its debiased sibling that have not learned from them.

        Where a model is live, later sessions decide: both rankers know the queries. Against the order that was shown,
        all sessions do, each query scored by rankers that learned from others.
        """
        if (self._run.folder / UNSEEN).is_file():
            unseen = np.load(self._run.folder / UNSEEN)
            return whole_log(evidence), unseen["candidate"], unseen["debiased"]
        debiased = load_numeric_ranker(self._run.folder / DEBIASED)
        return evidence.decide, scores_of(candidate, evidence.decide), scores_of(debiased, evidence.decide)

    def _decision(self) -> Decision:
        steps = [self._run.steps.get(name, {}) for name in ("train", "evaluate", "promote")]
        return decide(Check(**check) for step in steps for check in step.get("checks", ()))

    def _decide(self) -> dict[str, Any]:
        decision = self._decision()
        return {"promoted": decision.promoted, "reasons": decision.reasons}

    def _promote(self) -> dict[str, Any]:
        settings, steps = self._settings, self._run.steps
        if not steps["decide"]["promoted"]:
            return {"version": None}
        version = self._run.name
        check = check_live(
            self._registry.live_version(settings.model),
            before=steps["export"]["live"],
            version=version,
            was_live=any(move.version == version for move in self._registry.history(settings.model)),
        )
        if not check.holds:
            return {"version": None, "checks": [asdict(check)], "reasons": decide([check]).reasons}
        if all(card.version != version for card, _ in self._registry.cards() if card.name == settings.model):
            card = ModelCard(
                name=settings.model,
                version=version,
                kind="ltr",
                source=f"clicks, {'naive' if steps['train'].get('naive_because') else settings.learner}",
                licence="",
                data_hash=steps["train"]["data_hash"],
                parent=steps["export"]["live"],
                measures=steps["evaluate"]["measures"],
                feature_set=self._features.id,
            )
            self._registry.add(
                card,
                self._copy_candidate,
                promote=False,
            )
        found = "; ".join(check.found for check in self._decision().checks if check.name.startswith("better"))
        self._registry.promote(settings.model, version, why=f"the gate of the loop let it pass: {found}")
        return {"version": version}

    def _copy_candidate(self, folder: Path) -> None:
        shutil.copytree(self._run.folder / CANDIDATE, folder, dirs_exist_ok=True)

    def _report(self) -> dict[str, Any]:
        write_report(
            self._run.folder / REPORT,
            model=self._settings.model,
            run=self._run,
            decision=self._decision(),
            evidence=self._evidence(),
            curves=self._curves(),
        )
        return {"path": REPORT}

    def _curves(self) -> dict[str, Any]:
        found = {}
        if (self._run.folder / CANDIDATE).is_dir():
            found["candidate"] = load_propensities(self._run.folder / CANDIDATE)
            if found["candidate"] is None:
                found["debiased, not used"] = load_propensities(self._run.folder / DEBIASED)
        if self._live:
            found["before"] = self._curve_before()
        return {name: curve for name, curve in found.items() if curve is not None}

    def _clean(self) -> dict[str, Any]:
        # What was exported has the keys of people who may ask to be forgotten.
        shutil.rmtree(self._run.folder / LOG, ignore_errors=True)
        return {"at": datetime.now(UTC).isoformat(timespec="seconds")}


def _identity(log: SqlClickLog) -> str:
    """Tell databases of click logs apart: each counts its records on its own."""
    return hashlib.sha256(f"click log {log.salt()}".encode()).hexdigest()

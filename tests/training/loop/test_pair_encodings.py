"""A turn over what an encoder makes of query and document: learned from clicks, and served as it was logged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from index.clicklog.store import open_click_log
from index.pipelines import load_pipelines
from rankers.events import Event, Impression
from rankers.ltr.features import load_feature_set
from rankers.pipeline import PipelineResult
from rankers.types import Document, Query, Ranking
from training.loop.once import Loop
from training.loop.settings import load_settings

EXAMINATION = np.array([0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10])
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
PLACES, SESSIONS = 8, 60
TOPICS = {
    "animals": (
        ["which pets are easy to keep", "how do birds find their way", "what do bears eat", "why do dogs bark"],
        ["Cats sleep through most of the day.", "Geese fly south before the winter.", "A hamster stores seeds."],
    ),
    "food": (
        ["how is bread baked", "a soup for cold evenings", "what goes with noodles", "sweet things for a party"],
        ["Knead the dough and let it rise.", "Simmer lentils with carrots.", "Sugar and butter make a cake."],
    ),
    "traffic": (
        ["when must brakes be changed", "cheap ways to commute", "what does an engine need", "rules at a crossing"],
        ["The car lost its left wheel.", "Trams run every ten minutes.", "Give way to those from the right."],
    ),
    "music": (
        ["how does one learn an instrument", "who wrote operas", "what is a chord", "songs to dance to"],
        ["The quartet was written in 1806.", "A violin has four strings.", "Drums set the beat of a band."],
    ),
    "health": (
        ["what helps against a cold", "how does one sleep better", "when is a fever dangerous", "is running healthy"],
        ["Doctors advise rest and fluids.", "The vaccine protects for years.", "High blood pressure harms vessels."],
    ),
    "space": (
        ["how far are the stars", "who walked on the moon", "what are comets made of", "why is Mars red"],
        ["The telescope saw a new galaxy.", "A rocket reached its orbit.", "Planets circle the sun."],
    ),
}
FEATURES = """
name: pairs
version: 1
encoder: {encoder}
features: [{{name: pair, kind: pair_encoding, groups: 12}}]
"""
SHORTLIST = """
models_dir: models
default: learned
pipelines:
  learned: {{stages: [{{kind: ltr, model: ranker, depth: 10, feature_set: {folder}/pairs.yaml}}]}}
"""
LOOP = """
model: ranker
log: sqlite:///clicks.sqlite
gate: {clicks: {min_sessions: 300, min_clicks: 100}}
"""


def lists(*, number: int) -> list[tuple[Ranking, list[bool]]]:
    """For one query of each topic a list of documents, and whether each is of that topic; documents in no order."""
    rng = np.random.default_rng(number)
    documents = [
        Document(f"{topic} {at}", text) for topic, (_, texts) in TOPICS.items() for at, text in enumerate(texts)
    ]
    found = []
    for topic, (queries, _) in TOPICS.items():
        own = [document for document in documents if document.id.startswith(topic)]
        others = [document for document in documents if document not in own]
        shown = [*own, *(others[at] for at in rng.permutation(len(others))[: PLACES - len(own)])]
        shown = [shown[at] for at in rng.permutation(PLACES)]
        query = Query(f"{topic} {number}", queries[number])
        found.append((Ranking.from_order(query, shown), [document in own for document in shown]))
    return found


def click(folder: Path, served: list[tuple[PipelineResult, list[bool]]]) -> None:
    """Log every list SESSIONS times, as shown, with position-based clicks on what is of the topic."""
    rng = np.random.default_rng(9)
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    for session in range(SESSIONS):
        impressions, events = [], []
        for number, (result, wanted) in enumerate(served):
            shown_at = BEGIN + timedelta(minutes=session * len(served) + number)
            impression_id = f"{session}-{number}"
            evidence = result.ranking.evidence
            impressions.append(
                Impression(
                    id=impression_id,
                    query_text=result.ranking.query.text,
                    document_ids=result.ranking.ids,
                    pipeline="learned",
                    model_version="learned@0/ltr",
                    shown_at=shown_at,
                    features=evidence.features,
                    feature_set=evidence.feature_set,
                )
            )
            attracted = rng.random(PLACES) < np.where(wanted, 0.9, 0.1)
            for place in np.flatnonzero(attracted & (rng.random(PLACES) < EXAMINATION)):
                document_id, happened_at = result.ranking.ids[place], shown_at + timedelta(seconds=int(place) + 1)
                events.append(
                    Event(f"{impression_id}-{place}", impression_id, document_id, "click", int(place) + 1, happened_at)
                )
        log.add_impressions(impressions)
        log.add_events(events)
    log.close()


def on_top(result: PipelineResult) -> float:
    """Share of the first three places that are of the query's topic."""
    topic = result.ranking.query.id.split()[0]
    return float(np.mean([document_id.startswith(topic) for document_id in result.ranking.ids[:3]]))


def test_encodings_of_pairs_are_learned_from_and_served(tmp_path: Path, minilm: str) -> None:
    (tmp_path / "pairs.yaml").write_text(FEATURES.format(encoder=minilm))
    (tmp_path / "shortlist.yaml").write_text(SHORTLIST.format(folder=tmp_path))
    (tmp_path / "loop.yaml").write_text(LOOP)
    known, other = [one for number in range(3) for one in lists(number=number)], lists(number=3)
    pipelines = load_pipelines(tmp_path / "shortlist.yaml")
    try:
        cold = pipelines.open("learned").rerank([ranking for ranking, _ in known])
        assert [result.ranking.ids for result in cold] == [ranking.ids for ranking, _ in known]
        click(tmp_path, [(result, wanted) for result, (_, wanted) in zip(cold, known, strict=True)])

        outcome = Loop(load_settings(tmp_path / "loop.yaml")).turn()
        assert outcome.decision.promoted, outcome.decision.reasons

        before = [result.ranking for result in cold]
        after = pipelines.open("learned").rerank(before)
        unseen = pipelines.open("learned").rerank([ranking for ranking, _ in other])
    finally:
        pipelines.close()
    shown_first = float(np.mean([np.mean(wanted[:3]) for _, wanted in other]))
    assert np.mean([on_top(result) for result in unseen]) > shown_first + 0.3
    features = load_feature_set(tmp_path / "pairs.yaml")
    for logged, served in zip(before, after, strict=True):
        for document_id in logged.ids:
            one, two = (features.from_log(each.evidence.features[document_id]) for each in (logged, served.ranking))
            np.testing.assert_allclose(one, two, atol=1e-5)  # a batch of another shape rounds differently
    assert features.id == "pairs@1"
    assert len(features.names) == 24

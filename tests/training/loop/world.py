"""A shop with users: a click log whose impressions and clicks are drawn, and the files a loop needs beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from index.clicklog.store import open_click_log
from rankers.events import Event, Impression

EXAMINATION = np.array([0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10])
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
QUERIES, PLACES = 30, 8

FEATURE_SET = """
name: shop
version: 1
features:
  - {name: worth, kind: caller}
  - {name: noise, kind: caller}
"""
SHORTLIST = """
index: index
models_dir: models
default: learned
pipelines:
  learned:
    stages:
      - {{kind: ltr, model: ranker, depth: 10, feature_set: {folder}/features.yaml}}
"""
LOOP = """
model: ranker
log: sqlite:///clicks.sqlite
gate:
  clicks: {min_sessions: 300, min_clicks: 100}
"""


def open_shop(folder: Path) -> Path:
    """Write the files; gives that of the loop."""
    (folder / "features.yaml").write_text(FEATURE_SET)
    (folder / "shortlist.yaml").write_text(SHORTLIST.format(folder=folder))
    (folder / "loop.yaml").write_text(LOOP)
    return folder / "loop.yaml"


def visit(folder: Path, *, sessions: int, seed: int, days: int = 0, feature_set: str = "shop@1") -> None:
    """Every query is asked `sessions` times; who looks at a place clicks if the document is worth it.

    Features that are not logged with ``shop@1`` have other values; where no set is named there are none.
    """
    rng = np.random.default_rng(0)
    worth, noise = rng.random((2, QUERIES, PLACES))
    rng = np.random.default_rng(seed)
    impressions: list[Impression] = []
    events: list[Event] = []
    for session in range(sessions):
        for query in range(QUERIES):
            number = session * QUERIES + query
            shown_at = BEGIN + timedelta(days=days, minutes=number)
            impression_id = f"{seed}-{number}"
            ids = tuple(f"d{query}-{place}" for place in range(PLACES))
            sign = 1 if feature_set == "shop@1" else -1
            features = {
                document_id: {"worth": sign * float(worth[query, place]), "noise": sign * float(noise[query, place])}
                for place, document_id in enumerate(ids)
                if feature_set
            }
            impressions.append(
                Impression(
                    id=impression_id,
                    query_text=f"query {query}",
                    document_ids=ids,
                    pipeline="learned" if feature_set else "plain",
                    model_version="learned@0/ltr" if feature_set else "plain@0/retrieve",
                    shown_at=shown_at,
                    features=features,
                    feature_set=feature_set,
                    user_key=f"user {seed} {number}",
                )
            )
            attracted = rng.random(PLACES) < 0.1 + 0.9 * worth[query] ** 3
            for place in np.flatnonzero(attracted & (rng.random(PLACES) < EXAMINATION)):
                happened_at = shown_at + timedelta(seconds=int(place) + 1)
                events.append(
                    Event(f"{impression_id}-{place}", impression_id, ids[place], "click", int(place) + 1, happened_at)
                )
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    log.add_impressions(impressions)
    log.add_events(events)
    log.close()

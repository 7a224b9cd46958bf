"""Click models on real clicks: perplexity and likelihood of sessions they were not fitted on.

    python -m benchmarks.click_models path/to/yandex-clicks

The folder holds ``train.jsonl`` and ``test.jsonl``, a session per line with `query`, `docs` and `clicks`. Sessions pass
through the same reader and filters as any click log, which drops clicks on documents that were not shown and counts
repeated ones once. Baselines, measures and priors are those of PyClick: click-through rates over all (GCTR), by rank
(RCTR) and by document (DCTR). With ``--clax`` the models of CLAX, if it is installed, are fitted to the same
sessions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.clicks.keys import ListKeys
from training.clicks.models.browsing import fit_user_browsing
from training.clicks.models.measures import log_likelihood, perplexity
from training.clicks.models.model import ClickModel
from training.clicks.models.position import (
    fit_document_rates,
    fit_global_rate,
    fit_position_based,
    fit_rank_rates,
)
from training.clicks.models.top_down import (
    fit_cascade,
    fit_dependent_click,
    fit_dynamic_bayesian,
    fit_simplified_bayesian,
)
from training.clicks.reader import ReadClicks, read_click_lists
from training.ultr.lists import ClickLists

MODELS: dict[str, Callable[[ClickLists], ClickModel]] = {
    "GCTR": fit_global_rate,
    "RCTR": fit_rank_rates,
    "DCTR": fit_document_rates,
    "PBM": fit_position_based,
    "cascade": fit_cascade,
    "DCM": fit_dependent_click,
    "SDBN": fit_simplified_bayesian,
    "DBN": fit_dynamic_bayesian,
    "UBM": fit_user_browsing,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    train = read_sessions(options.data / "train.jsonl")
    test = read_sessions(options.data / "test.jsonl", onto=train.keys)
    for name, read in (("train", train), ("test", test)):
        print(f"{name}: {read.lists.sessions:,} sessions, {len(read.lists.rows):,} lists\n")
        print("\n".join(read.report.lines()) + "\n")
    print("| model | perplexity | by place | log-likelihood | s to fit |")
    print("| --- | --- | --- | --- | --- |")
    for name, fit in MODELS.items():
        started = time.perf_counter()
        model = fit(train.lists)
        seconds = time.perf_counter() - started
        found = perplexity(model, test.lists)
        places = " ".join(f"{value:.3f}" for value in found.by_place)
        print(f"| {name} | {found.mean:.4f} | {places} | {log_likelihood(model, test.lists):.4f} | {seconds:.2f} |")


def read_sessions(file: Path, *, onto: ListKeys | None = None) -> ReadClicks:
    shown_at = datetime(2011, 1, 1, tzinfo=UTC)
    impressions, events = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        session = json.loads(line)
        impression = {"id": str(number), "query_text": session["query"], "document_ids": session["docs"]}
        impressions.append(impression | {"shown_at": shown_at})
        for nth, document_id in enumerate(session["clicks"]):
            event = {"id": f"{number}-{nth}", "impression_id": str(number), "document_id": document_id, "kind": "click"}
            events.append(event | {"happened_at": shown_at + timedelta(seconds=nth)})
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.parquet" for name in ("impressions", "events")]
        for path, rows in zip(files, (impressions, events), strict=True):
            pq.write_table(pa.Table.from_pylist(rows), path)
        return read_click_lists(files[:1], files[1:], onto=onto)


if __name__ == "__main__":
    main()

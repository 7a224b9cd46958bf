"""What the service logs and exports is what training reads."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from index.clicklog.interchange import Format, export_log
from index.clicklog.store import open_click_log
from rankers.events import Event, Impression
from tests.training.clicks.logs import START
from training.clicks.filters import Reason
from training.clicks.reader import log_files, read_click_lists
from training.interleaving import read_interleaving


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_an_export_of_the_service_is_read(tmp_path: Path, form: Format) -> None:
    shown = Impression(
        id="i",
        query_text="Red  shoes",
        document_ids=("a", "b"),
        pipeline="main",
        model_version="ranker@3",
        shown_at=START,
        features={"a": {"bm25": 1.25, "age": None}, "b": {"bm25": 0.5}},
        feature_set="default@1",
        session_key="s",
        layout="grid:2",
        arms=("old", "new"),
    )
    moment = START + timedelta(seconds=5)
    log = open_click_log(f"sqlite:///{tmp_path / 'log.sqlite'}")
    log.add_impressions([shown, replace(shown, id="j", session_key=None, user_key="u")])
    log.add_events(
        [
            Event("e1", "i", "b", "click", 2, moment),
            Event("e2", "i", "b", "dwell", 2, moment, 12.5),
            Event("e3", "j", "b", "click", None, moment + timedelta(days=2)),
        ]
    )
    export_log(log, tmp_path / "files", form)
    log.close()
    files = log_files(tmp_path / "files")
    read = read_click_lists(*files)
    assert read.lists.shown.tolist() == [2]
    assert read.lists.clicks.tolist() == [[0, 1]]
    assert read.keys.queries == ("red shoes",)
    assert read.keys.slots == ("grid:2 row 1 column 1", "grid:2 row 1 column 2")
    assert read.keys.version_names == ("ranker@3",)
    assert read.lists.feature_names == ("age", "bm25")
    np.testing.assert_array_equal(read.lists.features, [[np.nan, 1.25], [np.nan, 0.5]])
    assert [(one.reason, one.examples) for one in read.report.removed] == [(Reason.TOO_LATE, ("e3",))]
    found = read_interleaving(*files, names=("old", "new"))
    assert (found.wins, found.losses, found.ties) == (0, 1, 1)

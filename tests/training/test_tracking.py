"""A run in a real MLflow store, and what happens without one."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from rankers.errors import MissingExtraError
from training.tracking import tracked_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def only_run(uri: str) -> Run:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("rankers")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_measures_and_parameters_reach_the_store(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with tracked_run(uri, experiment="rankers", parameters={"steps": 3}, folder=tmp_path) as log:
        log(1, {"loss": 2.0})
        log(2, {"loss": 1.5, "dev_ndcg": 0.7})
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"steps": "3"}
    assert run.data.metrics == {"loss": 1.5, "dev_ndcg": 0.7}


def test_a_run_that_fails_is_noted_as_failed(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with (
        pytest.raises(ValueError, match="no disk"),
        tracked_run(uri, experiment="rankers", parameters={}, folder=tmp_path),
    ):
        raise ValueError("no disk")
    assert only_run(uri).info.status == "FAILED"


def test_an_interrupted_run_goes_on_as_the_same(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/my runs.db"
    options = {"experiment": "rankers", "parameters": {"steps": 3}, "folder": tmp_path}
    with contextlib.suppress(OSError), tracked_run(uri, **options) as log:  # type: ignore[arg-type]
        log(1, {"loss": 2.0})
        raise OSError("no disk")
    with tracked_run(uri, **options) as log:  # type: ignore[arg-type]
        log(2, {"loss": 1.5})
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert [metric.value for metric in MlflowClient(uri).get_metric_history(run.info.run_id, "loss")] == [2.0, 1.5]
    other = f"sqlite:///{tmp_path}/other.db"
    with tracked_run(other, **options) as log:  # type: ignore[arg-type]
        log(3, {"loss": 1.0})
    assert only_run(other).data.metrics == {"loss": 1.0}


def test_without_a_store_nothing_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with tracked_run(None, experiment="rankers", parameters={}, folder=tmp_path) as log:
        log(1, {"loss": 2.0})


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with (
        pytest.raises(MissingExtraError, match=r"shortlist-rank\[tracking\]"),
        tracked_run(f"sqlite:///{tmp_path}/mlflow.db", experiment="rankers", parameters={}, folder=tmp_path),
    ):
        pass

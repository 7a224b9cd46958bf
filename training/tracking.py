"""Numbers of a training run, sent to MLflow where somebody asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rankers.errors import MissingExtraError

LogMeasures = Callable[[int, Mapping[str, float]], None]
"""Called with a step and the measures taken at it."""

RUN_FILE = "mlflow-run"
"""In the folder of a training run: which run of MLflow it is."""


@contextmanager
def tracked_run(
    uri: str | None, *, experiment: str, parameters: Mapping[str, object], folder: Path
) -> Iterator[LogMeasures]:
    """Open a run of an MLflow experiment, or go on with it; without a URI, one that forgets everything.

    Parameters
    ----------
    uri
        A server, or a local store such as ``sqlite:///var/mlflow.db``; None to track nothing.
    experiment
        Made if there is none of that name.
    parameters
        The configuration of the run.
    folder
        That of the training run: one that was interrupted goes on with the same run of MLflow.

    Yields
    ------
    LogMeasures
        To be called now and then; the run ends with the context, failed if by an exception.

    Raises
    ------
    MissingExtraError
        If MLflow is asked for and not installed.
    """
    if uri is None:
        yield _forget
        return
    try:
        import mlflow
    except ImportError as error:
        raise MissingExtraError("mlflow", extra="tracking") from error
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    kept = folder / RUN_FILE
    store, _, earlier = kept.read_text().rpartition(" ") if kept.is_file() else ("", "", "")
    with mlflow.start_run(run_id=earlier if store == uri else None) as run:
        kept.write_text(f"{uri} {run.info.run_id}")
        mlflow.log_params(dict(parameters))

        def log(step: int, measures: Mapping[str, float]) -> None:
            mlflow.log_metrics(dict(measures), step=step)

        yield log


def _forget(step: int, measures: Mapping[str, float]) -> None:
    """Track nothing."""

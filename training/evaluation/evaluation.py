"""Run a pipeline over a dataset, so that an interruption costs one batch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankers.errors import InvalidInputError
from rankers.pipeline import Pipeline, PipelineResult
from rankers.types import Query
from training.evaluation.datasets import Dataset
from training.evaluation.memory import peak_memory_mib, reset_peak_memory
from training.evaluation.runs import format_run

Progress = Callable[[int, int], None]
"""Called with how many queries are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What running a pipeline over a dataset gave.

    `scores` is the run, query id -> document id -> strictly decreasing score, as in the file at `run_path`. `seconds`
    and `stage_seconds` are summed over queries and do not count loading; `tokens` is what LLMs and cross-encoders
    processed; `peak_memory_mib` is the most the process had resident while this pipeline ran, models and indexes that
    were loaded before included.
    """

    pipeline: str
    run_path: Path
    scores: Mapping[str, Mapping[str, float]]
    seconds: float
    stage_seconds: Mapping[str, float]
    tokens: int
    peak_memory_mib: float

    @property
    def queries_per_s(self) -> float:
        """Throughput of the whole pipeline."""
        return len(self.scores) / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Journal:
    """Results so far, one JSON line per batch, in a file that is only ever appended to.

    A batch is there whole or not at all, so whoever goes on forms the batches an uninterrupted run has: in another
    batch, floating point rounds differently.
    """

    path: Path
    fingerprint: Mapping[str, object]
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    peak_memory_mib: float = 0.0

    def open(self, *, fresh: bool) -> None:
        """Read what an earlier run left, or begin."""
        if fresh:
            self.path.unlink(missing_ok=True)
        if self.path.is_file():
            complete = self.path.read_bytes().rpartition(b"\n")[0]  # the last line may have been cut off
            lines = [json.loads(line) for line in complete.splitlines()]
            if lines and lines[0] != self.fingerprint:
                raise InvalidInputError(
                    f"{self.path} belongs to another evaluation: {_difference(lines[0], self.fingerprint)}; "
                    "choose another --out, or --fresh to start over"
                )
            for batch in lines[1:]:
                self._take(batch)
            kept = lines or [self.fingerprint]
        else:
            kept = [self.fingerprint]
        staged = self.path.with_suffix(".staged")
        staged.write_text("".join(json.dumps(line) + "\n" for line in kept))
        staged.replace(self.path)

    def append(self, rows: Sequence[dict[str, Any]], *, peak_memory_mib: float) -> None:
        """Add the rows of a batch; they are on the disk when this returns."""
        batch = {"queries": rows, "peak_memory_mib": peak_memory_mib}
        with self.path.open("a") as file:
            file.write(json.dumps(batch) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(batch)

    def _take(self, batch: Mapping[str, Any]) -> None:
        self.done |= {row["query_id"]: row for row in batch["queries"]}
        self.peak_memory_mib = max(self.peak_memory_mib, batch["peak_memory_mib"])


def evaluate(
    pipeline: Pipeline,
    dataset: Dataset,
    folder: Path,
    *,
    depth: int = 100,
    batch_size: int = 32,
    configuration: Mapping[str, object] | None = None,
    fresh: bool = False,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Run a pipeline over a dataset and write a TREC run.

    Results are kept batch by batch in ``<folder>/<pipeline>.journal.jsonl``; when the same evaluation is started
    again, it goes on behind the last complete batch, and the run comes out as if there had been no interruption.

    Parameters
    ----------
    pipeline
        With a retriever; the very object that serves.
    dataset
        Its queries are run in their order.
    folder
        Made if missing; gets ``<pipeline>.trec``.
    depth
        Places per query.
    batch_size
        Queries that run together.
    configuration
        What the pipeline is made of and which documents it searches; an evaluation is gone on with only if this is
        what it was.
    fresh
        Whether to start over in any case.
    on_progress
        Called after every batch.

    Returns
    -------
    Evaluation
        The run and what it cost. Time spent before an interruption counts.

    Raises
    ------
    InvalidInputError
        If the folder holds the beginning of another evaluation, or `depth` or `batch_size` is under 1.
    """
    if depth < 1 or batch_size < 1:
        raise InvalidInputError(f"depth is {depth} and batch_size is {batch_size}, both must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = {
        "pipeline": pipeline.name,
        "configuration": json.loads(json.dumps(configuration or {}, default=str)),
        "dataset": dataset.name,
        "queries": _digest(dataset.queries),
        "depth": depth,
        "batch_size": batch_size,
    }
    journal = _Journal(folder / f"{pipeline.name}.journal.jsonl", fingerprint)
    journal.open(fresh=fresh)
    if on_progress is not None:
        on_progress(len(journal.done), len(dataset.queries))
    reset_peak_memory()
    waiting = [query for query in dataset.queries if query.id not in journal.done]
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        started = time.perf_counter()
        results = pipeline.run(batch, depth)
        seconds = (time.perf_counter() - started) / len(batch)
        rows = [_row(result, seconds, tag=pipeline.name) for result in results]
        journal.append(rows, peak_memory_mib=peak_memory_mib())
        if on_progress is not None:
            on_progress(len(journal.done), len(dataset.queries))
    rows = [journal.done[query.id] for query in dataset.queries]
    run_path = folder / f"{pipeline.name}.trec"
    run_path.write_text("".join(row["run"] for row in rows))
    return Evaluation(
        pipeline=pipeline.name,
        run_path=run_path,
        scores={row["query_id"]: dict(_scores(row["run"])) for row in rows},
        seconds=sum(row["seconds"] for row in rows),
        stage_seconds={
            name: sum(row["stage_seconds"].get(name, 0.0) for row in rows) for name in rows[0]["stage_seconds"]
        },
        tokens=sum(row["tokens"] for row in rows),
        peak_memory_mib=journal.peak_memory_mib,
    )


def _digest(queries: Sequence[Query]) -> str:
    content = json.dumps([(query.id, query.text) for query in queries])
    return f"{len(queries)}, sha256 {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _row(result: PipelineResult, seconds: float, *, tag: str) -> dict[str, Any]:
    return {
        "query_id": result.ranking.query.id,
        "seconds": seconds,
        "stage_seconds": {stage.name: stage.seconds for stage in result.stages},
        "tokens": sum(stage.ranking.evidence.tokens for stage in result.stages),
        "run": format_run([result.ranking], tag=tag),
    }


def _scores(run: str) -> Iterator[tuple[str, float]]:
    for line in run.splitlines():
        _, _, document_id, _, score, _ = line.split()
        yield document_id, float(score)


def _difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    return ", ".join(_differences(old, new))


def _differences(old: Mapping[str, object], new: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key} was {str(was)[:80]}, is {str(now)[:80]}"

"""Small click logs, written as the service exports them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.clicks.reader import ReadClicks, log_files, read_click_lists

START = datetime(2025, 1, 1, tzinfo=UTC)

IMPRESSIONS = pa.schema(
    [
        ("seq", pa.int64()),
        ("id", pa.string()),
        ("query_text", pa.string()),
        ("document_ids", pa.list_(pa.string())),
        ("pipeline", pa.string()),
        ("model_version", pa.string()),
        ("shown_at", pa.timestamp("us", tz="UTC")),
        ("features", pa.string()),
        ("feature_set", pa.string()),
        ("session_key", pa.string()),
        ("user_key", pa.string()),
        ("layout", pa.string()),
        ("source", pa.string()),
        ("arms", pa.list_(pa.string())),
    ]
)
EVENTS = pa.schema(
    [
        ("seq", pa.int64()),
        ("id", pa.string()),
        ("impression_id", pa.string()),
        ("document_id", pa.string()),
        ("kind", pa.string()),
        ("position", pa.int64()),
        ("happened_at", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
    ]
)

Row = Mapping[str, object]


class Log:
    """Collects rows; times are seconds after `START`."""

    def __init__(self) -> None:
        self.impressions: list[Row] = []
        self.events: list[Row] = []

    def show(
        self,
        impression_id: str,
        document_ids: Sequence[str],
        *,
        query: str = "shoes",
        at_s: float = 0.0,
        features: Mapping[str, Mapping[str, float | None]] | None = None,
        **columns: object,
    ) -> None:
        row: dict[str, object] = {
            "seq": len(self.impressions),
            "id": impression_id,
            "query_text": query,
            "document_ids": list(document_ids),
            "pipeline": "main",
            "model_version": "v1",
            "shown_at": START + timedelta(seconds=at_s),
            "features": json.dumps(features or {}),
            "feature_set": "f",
            "layout": "list",
            "source": "served",
            "arms": [],
        }
        self.impressions.append(row | columns)

    def event(
        self, impression_id: str, document_id: str, *, at_s: float = 1.0, kind: str = "click", **columns: object
    ) -> None:
        row: dict[str, object] = {
            "seq": len(self.events),
            "id": f"event-{len(self.events)}",
            "impression_id": impression_id,
            "document_id": document_id,
            "kind": kind,
            "happened_at": START + timedelta(seconds=at_s),
        }
        self.events.append(row | columns)

    def write(self, folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.impressions, IMPRESSIONS), folder / "impressions.parquet")
        pq.write_table(pa.Table.from_pylist(self.events, EVENTS), folder / "events.parquet")
        return log_files(folder)

    def read(self, folder: Path) -> ReadClicks:
        return read_click_lists(*self.write(folder), threads=1)

"""How long a click log takes to read for training, and in how much memory.

    python -m benchmarks.clicklog_reader --folder /var/tmp/clicklog --events 1000000 10000000

Writes a log of simulated impressions and events as Parquet, two events for each impression (a click and its dwell
time), with 1 % of events broken in five ways and 0.1 % of impressions from bots, then reads it in a process of its own.
What was read has to add up, or the run fails. The table has the peak resident memory of the reading process, and what
of it a process has that only imports the reader.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import duckdb

from training.evaluation.memory import peak_memory_mib

QUERIES, LISTS, PLACES = 2_000, 5, 10
PART = 500_000
"""Impressions per file."""

IMPRESSIONS = """
COPY (
    SELECT i AS seq, 'impression-' || hash(i)::VARCHAR AS id, 'query number ' || query AS query_text, document_ids,
        'main' AS pipeline, 'v' || (variant % 2) AS model_version,
        TIMESTAMPTZ '2025-01-01 00:00:00+00' + to_milliseconds(i * 100) AS shown_at, features, 'f1' AS feature_set,
        CASE WHEN (i // 100) % 1000 > 0 THEN 'session-' || (i // 7) ELSE 'bot-' || (i // 100_000) END AS session_key,
        NULL::VARCHAR AS user_key, 'list' AS layout, 'served' AS source, []::VARCHAR[] AS arms
    FROM (SELECT i, (hash(i, 1) % $queries)::BIGINT AS query, (hash(i, 2) % $lists)::BIGINT AS variant
          FROM range($first, $last) r(i)) JOIN content USING (query, variant)
) TO '{path}'
"""
CONTENT = """
CREATE TABLE content AS
SELECT query, variant, ids AS document_ids, to_json(map(ids, features))::VARCHAR AS features FROM (
    SELECT query, variant, list('document-' || query || '-' || d ORDER BY hash(query, variant, d)) AS ids,
        list({'bm25': round(d * 1.37 + query % 7, 3), 'price': d * 10, 'age': d + variant / 2}
             ORDER BY hash(query, variant, d)) AS features
    FROM range($queries) q(query), range($lists) v(variant), range($places) p(d) GROUP BY query, variant)
"""
EVENTS = """
COPY (
    SELECT i * 2 + nth AS seq, 'event-' || (i * 2 + nth) AS id,
        'impression-' || hash(CASE WHEN broken = 1 THEN -i ELSE i END)::VARCHAR AS impression_id,
        CASE WHEN broken = 2 THEN 'elsewhere' ELSE document_ids[place] END AS document_id,
        CASE nth WHEN 0 THEN 'click' ELSE 'dwell' END AS kind, CASE WHEN broken = 3 THEN 99 ELSE place END AS position,
        TIMESTAMPTZ '2025-01-01 00:00:00+00' + to_milliseconds(i * 100)
            + CASE broken WHEN 4 THEN to_days(3) WHEN 5 THEN to_days(-3) ELSE to_seconds(5 + nth * 20) END
            AS happened_at,
        CASE nth WHEN 1 THEN 20.0 END AS value
    FROM (SELECT i, nth, (hash(i, 1) % $queries)::BIGINT AS query, (hash(i, 2) % $lists)::BIGINT AS variant,
              least(hash(i, 3) % 10, hash(i, 4) % 10)::BIGINT + 1 AS place,
              CASE WHEN hash(i, nth, 5) % 500 < 5 THEN hash(i, nth, 5) % 500 + 1 ELSE 0 END AS broken
          FROM range($first, $last) r(i), range(2) n(nth)) JOIN content USING (query, variant)
) TO '{path}'
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where logs are written and kept")
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--memory-limit-mb", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read, options.folder, options.memory_limit_mb, options.threads)
        return
    print("| events | impressions | MiB of Parquet | s | peak MiB | of it imports | lists | patterns | clicks kept |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for events in options.events:
        log = options.folder / f"events-{events}"
        if not log.exists():
            write(log, events // 2)
        command = [
            sys.executable,
            "-m",
            "benchmarks.clicklog_reader",
            "--folder",
            str(options.folder),
            "--read",
            str(log),
        ]
        limits = ["--memory-limit-mb", str(options.memory_limit_mb), "--threads", str(options.threads)]
        found = json.loads(subprocess.run(command + limits, check=True, capture_output=True, text=True).stdout)
        size = sum(file.stat().st_size for file in log.iterdir()) >> 20
        print(
            f"| {events:,} | {events // 2:,} | {size:,} | {found['seconds']:.1f} | {found['peak_mib']:,.0f} | "
            f"{found['imports_mib']:,.0f} | {found['lists']:,} | {found['patterns']:,} | {found['clicks']:,} |"
        )
    print("\n" + "\n".join(found["report"]))


def write(log: Path, impressions: int) -> None:
    log.mkdir(parents=True)
    sizes = {"queries": QUERIES, "lists": LISTS}
    with duckdb.connect() as connection:
        connection.execute(CONTENT, sizes | {"places": PLACES})
        for part, first in enumerate(range(0, impressions, PART)):
            span = {"first": first, "last": min(first + PART, impressions)}
            for name, statement in (("impressions", IMPRESSIONS), ("events", EVENTS)):
                connection.execute(statement.format(path=log / f"{name}-{part:03}.parquet"), sizes | span)


def read(log: Path, folder: Path, memory_limit_mb: int, threads: int) -> None:
    from training.clicks.reader import log_files, read_click_lists

    imports = peak_memory_mib()
    started = time.perf_counter()
    found = read_click_lists(*log_files(log), temp_dir=folder, memory_limit_mb=memory_limit_mb, threads=threads)
    seconds = time.perf_counter() - started
    lists, report = found.lists, found.report
    assert lists.patterns is not None
    assert lists.sessions == report.impressions_kept == lists.patterns.sessions.sum()
    assert lists.clicks.sum() == report.clicks_kept
    assert report.events == report.events_kept + sum(one.count for one in report.removed if one.table == "events")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak_mib": peak_memory_mib(),
                "imports_mib": imports,
                "lists": len(lists.rows),
                "patterns": len(lists.patterns.lists),
                "clicks": report.clicks_kept,
                "report": list(report.lines()),
            }
        )
    )


if __name__ == "__main__":
    main()

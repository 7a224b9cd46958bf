"""A click log read for training: joined, filtered, collapsed to click lists, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rankers.errors import NotFoundError
from training.clicks.collapse import collapse
from training.clicks.filtered_log import FORMATS, open_filtered_log
from training.clicks.filters import FilterReport, FilterRules
from training.clicks.keys import ListKeys
from training.ultr.lists import ClickLists


@dataclass(frozen=True, slots=True)
class ReadClicks:
    """Click lists read from a log: `lists` for learning, `keys` with the names, the `report` of the filters.

    `lists_changed` lists were shown with more than one set of feature values; the most recent were taken.
    """

    lists: ClickLists
    keys: ListKeys
    lists_changed: int
    report: FilterReport


def log_files(folder: str | Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Find the files of an exported click log: ``impressions*`` and ``events*``, Parquet or JSON lines.

    Parameters
    ----------
    folder
        Where the export lies, several parts allowed.

    Returns
    -------
    tuple
        Files of impressions, files of events, sorted by name.

    Raises
    ------
    NotFoundError
        If there are none of one kind.
    """
    found = []
    for name in ("impressions", "events"):
        files = tuple(sorted(path for path in Path(folder).glob(f"{name}*") if path.name.endswith(FORMATS)))
        if not files:
            raise NotFoundError(f"{folder} has no {name}*.parquet and no {name}*.jsonl; export the click log there")
        found.append(files)
    return found[0], found[1]


def read_click_lists(
    impressions: Sequence[Path],
    events: Sequence[Path],
    *,
    onto: ListKeys | None = None,
    rules: FilterRules | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    feature_set: str | None = None,
    temp_dir: Path | None = None,
    memory_limit_mb: int = 1024,
    threads: int | None = None,
) -> ReadClicks:
    """Read a click log into click lists: impressions of the same (query, list, layout, model version) become counts.

    The collapse is exact: nothing but the order of sessions, and who they were, is lost. Memory depends on how many
    different lists, clicked patterns and (query, document) pairs there are, not on the sessions.

    To train before a moment T and test from it on, read with ``until=T``, then with ``since=T`` and ``onto`` the keys
    of the first: rows, queries and slots keep their numbers, new ones follow, and nothing of the second is seen by the
    first, neither features nor clicks that came late nor users who turned out to be bots.

    Parameters
    ----------
    impressions
        Files of impressions (see `log_files`).
    events
        Files of events.
    onto
        Keys of lists read before, whose numbers are to be kept.
    rules
        What to filter; the defaults of `FilterRules` if not given.
    since
        The first moment of the period.
    until
        The end of the period, not part of it.
    feature_set
        As ``name@version``, if features are to be those of one set: impressions that were not logged with it are left
        out, and counted.
    temp_dir
        Folder for what does not fit in memory; the system's if not given.
    memory_limit_mb
        MiB that DuckDB may use; the click lists come on top.
    threads
        Threads of DuckDB; one per core if not given.

    Returns
    -------
    ReadClicks
        Lists with patterns, sorted by query, documents, layout and version, so that equal logs give equal arrays.

    Raises
    ------
    NotFoundError
        If a file does not exist.
    InvalidInputError
        If a file cannot be read, lacks a column or holds an unknown layout.
    """
    with open_filtered_log(
        impressions,
        events,
        rules=rules,
        since=since,
        until=until,
        feature_set=feature_set,
        temp_dir=temp_dir,
        memory_limit_mb=memory_limit_mb,
        threads=threads,
    ) as log:
        return ReadClicks(*collapse(log.connection, onto), log.report)

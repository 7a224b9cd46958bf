"""The table of `training.robustness.harness` as Markdown for people and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from training.evaluation.measures import describe, gain
from training.evaluation.significance import Interval
from training.robustness.harness import Robustness, Row

COLUMNS = ("rows", "input", "measure", "difference from clean", "p", "per-query deviation", "queries", "besides")

FORMS: Mapping[str, Callable[[float], str]] = {
    "tau": "{:.3f}".format,
    "share of candidates rewritten": "{:.1%}".format,
    "rewritten above original": "{:.1%}".format,
    "queries attacked": "{:d}".format,
    "places won": "{:+.2f}".format,
    "enters the top 10": "{:.1%}".format,
}
"""What `Row.figures` may hold, and how each is written; an interval is written behind what it is of."""

NOTES = """\
In brackets: 95% bootstrap intervals over queries, those of differences paired by query; p of a paired t-test. Rows with
a number of draws are means over them, and their deviation is the mean over queries of the standard deviation over
draws. Tau: Kendall's, between the order of the same candidates on the clean and on the disturbed input. Places won:
rank of the attacked document, which is not relevant, without the attack minus its rank with it. Rewritten above
original: each pair is offered both ways round, so 50% means no preference.
"""


def markdown(robustness: Robustness) -> str:
    """Give the table as Markdown.

    Parameters
    ----------
    robustness
        From `measure_robustness`.

    Returns
    -------
    str
        A title, a table, and how to read it.
    """
    lines = [
        f"# Robustness of {robustness.pipeline} on {robustness.dataset}, {robustness.queries} queries",
        "",
        f"Measure: {describe(robustness.settings.measure)}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(f"| {' | '.join(cells(row))} |" for row in robustness.rows),
        "",
        NOTES,
    ]
    return "\n".join(lines)


def cells(row: Row) -> tuple[str, ...]:
    """Write a row, one text per column of `COLUMNS`."""
    compared = row.comparison
    return (
        row.family,
        row.name if row.repeats == 1 or not row.values else f"{row.name} ({row.repeats} draws)",
        "" if row.interval is None else f"{row.interval.mean:.4f}",
        "" if compared is None else _with_interval(compared.difference),
        "" if compared is None else f"{compared.p_value:.3g}",
        "" if row.deviation is None else f"{row.deviation:.4f}",
        str(row.queries),
        _besides(row.figures),
    )


def _with_interval(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _besides(figures: Mapping[str, float]) -> str:
    parts = [f"{name} {FORMS[name](value)}" for name, value in figures.items() if name in FORMS]
    if "low" in figures:
        parts.append(f"[{figures['low']:.1%}, {figures['high']:.1%}]")
    return " ".join(parts) if "low" in figures else ", ".join(parts)


def as_json(robustness: Robustness) -> dict[str, object]:
    """Give everything, values per query included, ready for JSON."""
    return {
        "dataset": robustness.dataset,
        "pipeline": robustness.pipeline,
        "queries": robustness.queries,
        "measure": robustness.settings.measure,
        "gain": gain(robustness.settings.measure),
        "settings": asdict(robustness.settings),
        "rows": [
            {
                "family": row.family,
                "name": row.name,
                "queries": row.queries,
                "repeats": row.repeats,
                "interval": None if row.interval is None else asdict(row.interval),
                "against_clean": None if row.comparison is None else asdict(row.comparison),
                "deviation": row.deviation,
                "figures": dict(row.figures),
                "per_query": dict(row.values),
            }
            for row in robustness.rows
        ],
        "configuration": robustness.configuration,
    }


def write_report(robustness: Robustness, folder: Path) -> Path:
    """Write ``robustness.md`` and ``robustness.json``.

    Parameters
    ----------
    robustness
        From `measure_robustness`.
    folder
        Made if missing.

    Returns
    -------
    Path
        Of the Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "robustness.json").write_text(json.dumps(as_json(robustness), indent=2, default=str) + "\n")
    path = folder / "robustness.md"
    path.write_text(markdown(robustness))
    return path

"""The outcome of an evaluation as JSON for programs, Markdown for pull requests, HTML for people."""

from __future__ import annotations

import base64
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from training.evaluation.datasets import Dataset
from training.evaluation.evaluation import Evaluation
from training.evaluation.measures import describe, gain, measure_run
from training.evaluation.significance import Comparison, Interval, bootstrap_interval, compare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIBRARIES = (
    "shortlist-rank",
    "bm25s",
    "faiss-cpu",
    "ir-measures",
    "numpy",
    "pytrec-eval-terrier",
    "scipy",
    "sentence-transformers",
    "torch",
    "transformers",
)
COLOURS = ("#2f6f4f", "#b5583c", "#3c6fb5", "#c79a2b", "#79b791")
TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything there is to say about some pipelines on one dataset.

    `values` is pipeline -> measure -> query id -> value; `comparisons` hold each pipeline after the first against the
    first, the baseline.
    """

    dataset: str
    queries: int
    evaluations: tuple[Evaluation, ...]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    intervals: Mapping[str, Mapping[str, Interval]]
    comparisons: Mapping[str, Mapping[str, Comparison]]
    configuration: Mapping[str, object]

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures, in the order asked for."""
        return tuple(next(iter(self.values.values())))

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return self.evaluations[0].pipeline


def build_report(
    dataset: Dataset,
    evaluations: Sequence[Evaluation],
    *,
    measures: Sequence[str],
    configuration: Mapping[str, object],
) -> Report:
    """Measure runs and compare each with the first.

    Parameters
    ----------
    dataset
        With the judgements.
    evaluations
        At least one.
    measures
        Names for `measure_run`.
    configuration
        What was run, for the record.

    Returns
    -------
    Report
        Over all judged queries of the dataset.
    """
    values = {e.pipeline: measure_run(e.scores, dataset.qrels, measures) for e in evaluations}
    baseline = values[evaluations[0].pipeline]
    return Report(
        dataset=dataset.name,
        queries=len(dataset.queries),
        evaluations=tuple(evaluations),
        values=values,
        intervals={
            name: {m: bootstrap_interval(list(by_query.values())) for m, by_query in by_measure.items()}
            for name, by_measure in values.items()
        },
        comparisons={
            e.pipeline: {m: compare(values[e.pipeline][m], baseline[m]) for m in measures} for e in evaluations[1:]
        },
        configuration=configuration,
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.json``, ``report.md`` and ``report.html``.

    Parameters
    ----------
    report
        From `build_report`.
    folder
        Made if missing.

    Returns
    -------
    Path
        Of the HTML, which holds its pictures and needs no network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(_as_json(report), indent=2) + "\n")
    (folder / "report.md").write_text(markdown(report))
    path = folder / "report.html"
    path.write_text(_html(report))
    return path


def markdown(report: Report) -> str:
    """Give the report as Markdown tables."""
    lines = [
        f"# {report.dataset}, {report.queries} queries",
        "",
        f"| pipeline | {' | '.join(map(describe, report.measures))} | s | queries/s | tokens | peak MiB |",
        f"| --- |{' --- |' * (len(report.measures) + 4)}",
    ]
    for e in report.evaluations:
        cells = [_with_interval(report.intervals[e.pipeline][m]) for m in report.measures]
        lines.append(
            f"| {e.pipeline} | {' | '.join(cells)} | {e.seconds:.1f} | {e.queries_per_s:.1f} | {e.tokens:,} "
            f"| {e.peak_memory_mib:,.0f} |"
        )
    lines += ["", "In brackets: 95% bootstrap intervals over queries."]
    if report.comparisons:
        lines += [
            "",
            f"## Against {report.baseline}",
            "",
            "| pipeline | measure | difference | p (paired t-test) | better / same / worse |",
            "| --- | --- | --- | --- | --- |",
        ]
    for name, by_measure in report.comparisons.items():
        for m, c in by_measure.items():
            lines.append(
                f"| {name} | {describe(m)} | {_with_interval(c.difference, sign=True)} | {c.p_value:.3g} "
                f"| {c.wins} / {c.ties} / {c.losses} |"
            )
    return "\n".join(lines) + "\n"


def _with_interval(interval: Interval, *, sign: bool = False) -> str:
    form = "+.4f" if sign else ".4f"
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _as_json(report: Report) -> dict[str, object]:
    return {
        "dataset": report.dataset,
        "queries": report.queries,
        "baseline": report.baseline,
        "gain": {m: gain(m) for m in report.measures if gain(m)},
        "pipelines": {
            e.pipeline: {
                "measures": {m: asdict(report.intervals[e.pipeline][m]) for m in report.measures},
                "against_baseline": {m: asdict(c) for m, c in report.comparisons.get(e.pipeline, {}).items()},
                "seconds": e.seconds,
                "queries_per_s": e.queries_per_s,
                "stage_seconds": dict(e.stage_seconds),
                "tokens": e.tokens,
                "peak_memory_mib": e.peak_memory_mib,
                "run": e.run_path.name,
                "per_query": report.values[e.pipeline],
            }
            for e in report.evaluations
        },
        "configuration": report.configuration,
        "environment": _environment(),
    }


def _environment() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def _html(report: Report) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(
        report=report,
        describe=describe,
        with_interval=_with_interval,
        configuration=json.dumps(report.configuration, indent=2, default=str),
        environment=_environment(),
        pictures=[(title, _png(figure)) for title, figure in _pictures(report)],
    )


def _pictures(report: Report) -> list[tuple[str, Figure]]:
    main = report.measures[0]
    pictures = [(f"{describe(main)}: mean and 95% interval", _means(report, main))]
    pictures += [
        (f"{describe(main)} query by query: {name} - {report.baseline}", _differences(report, name, main))
        for name in report.comparisons
    ]
    pictures.append((f"{describe(main)}: share of queries at or below a value", _distributions(report, main)))
    pictures.append(("Time per query and stage", _times(report)))
    return pictures


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(8, height), layout="constrained")


def _means(report: Report, measure: str) -> Figure:
    figure = _figure(0.8 + 0.4 * len(report.evaluations))
    axes = figure.subplots()
    for row, e in enumerate(report.evaluations):
        interval = report.intervals[e.pipeline][measure]
        axes.plot([interval.low, interval.high], [row, row], color="#79b791", linewidth=5, solid_capstyle="butt")
        axes.plot(interval.mean, row, "o", color="#2f6f4f")
    axes.set_yticks(range(len(report.evaluations)), [e.pipeline for e in report.evaluations])
    axes.set_ylim(len(report.evaluations) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _differences(report: Report, name: str, measure: str) -> Figure:
    ours, baseline = report.values[name][measure], report.values[report.baseline][measure]
    differences = sorted((ours[query_id] - baseline[query_id] for query_id in baseline), reverse=True)
    figure = _figure(2.6)
    axes = figure.subplots()
    colours = ["#2f8f5b" if value > 0 else "#b5583c" for value in differences]
    axes.bar(range(len(differences)), differences, color=colours, width=1.0)
    axes.axhline(0, color="#6b756f", linewidth=0.8)
    axes.set_xlabel("queries, by difference")
    return figure


def _distributions(report: Report, measure: str) -> Figure:
    figure = _figure(2.8)
    axes = figure.subplots()
    for place, e in enumerate(report.evaluations):
        axes.ecdf(
            list(report.values[e.pipeline][measure].values()),
            label=e.pipeline,
            color=COLOURS[place % len(COLOURS)],
            linestyle=("-", "--", ":")[place // len(COLOURS) % 3],
        )
    axes.set_xlabel(describe(measure))
    axes.set_ylabel("queries")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _times(report: Report) -> Figure:
    figure = _figure(0.8 + 0.4 * len(report.evaluations))
    axes = figure.subplots()
    for row, e in enumerate(report.evaluations):
        left = 0.0
        for place, (stage, seconds) in enumerate(e.stage_seconds.items()):
            width = seconds / max(len(e.scores), 1)
            axes.barh(row, width, left=left, color=("#79b791", "#2f6f4f", "#b5583c")[place % 3])
            if width > 0:
                axes.annotate(stage, (left + width / 2, row), ha="center", va="center", fontsize=7)
            left += width
    axes.set_yticks(range(len(report.evaluations)), [e.pipeline for e in report.evaluations])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    return figure


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return base64.b64encode(buffer.getvalue()).decode()

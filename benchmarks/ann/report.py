"""The table and the plot of what `measure` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECALLS = (0.9, 0.95, 0.99)


def report(out: Path) -> None:
    """Write ``table.md`` and ``recall.png`` into a folder with results."""
    results = {path.stem: _lines(path) for path in sorted(out.glob("*.jsonl"))}
    table = _table(results)
    (out / "table.md").write_text(table)
    _plot(results, out / "recall.png")
    print(table)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _table(results: dict[str, list[dict[str, Any]]]) -> str:
    head = (
        "| index | recall@10 | p50 / p95 µs | QPS, 1 / 2 threads | cold p50 / p95 ms | cold read KB | own memory MB |"
    )
    rows = [head + " disk MB | build CPU s |", "|" + " --- |" * 9]
    for name, lines in results.items():
        build: dict[str, Any] = next((line for line in lines if line["kind"] == "build"), {})
        warm = [line for line in lines if line["kind"] == "warm" and line["threads"] == 1]
        for wanted in RECALLS:
            # Of the settings that reach the recall the fastest counts.
            reached = [line for line in warm if line["recall"] >= wanted]
            if not reached:
                continue
            best = min(reached, key=lambda line: float(line["p50_us"]))
            more = [
                line["qps"]
                for line in lines
                if line["kind"] == "warm" and line["threads"] > 1 and line["knob"] == best["knob"]
            ]
            cold = next((line for line in lines if line["kind"] == "cold" and line["wanted"] == wanted), None)
            rows.append(
                f"| {name} | {best['recall']:.3f} | {best['p50_us']:,.0f} / {best['p95_us']:,.0f} "
                f"| {best['qps']:,.0f} / {f'{more[-1]:,.0f}' if more else '-'} "
                + (
                    f"| {cold['p50_us'] / 1e3:,.1f} / {cold['p95_us'] / 1e3:,.1f} | {cold['read_kb']:,.0f} "
                    if cold
                    else "| - | - "
                )
                + f"| {best['anon_mb']:,.0f} | {build.get('disk_mb', 0):,.0f} | {build.get('cpu_s', 0):,.0f} |"
            )
    return "\n".join(rows) + "\n"


def _cold(line: dict[str, Any] | None) -> str:
    if line is None:
        return "| - | - "
    return f"| {line['p50_us'] / 1e3:,.1f} / {line['p95_us'] / 1e3:,.1f} | {line['read_kb']:,.0f} "


def _plot(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, lines in results.items():
        warm = [line for line in lines if line["kind"] == "warm" and line["threads"] == 1]
        axes.plot(
            [line["recall"] for line in warm],
            [line["p50_us"] for line in warm],
            marker=".",
            linewidth=2.5 if name.startswith("spann") else 1,
            label=name,
        )
    axes.set_yscale("log")
    axes.set_xlim(0.8, 1.0)
    axes.set_xlabel("recall@10")
    axes.set_ylabel("latency of one query, µs (median)")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=90)

"""A picture of what recall costs."""

from __future__ import annotations

from pathlib import Path

from index.spann.curve import Curve
from rankers.errors import MissingExtraError

PLOT_FILE = "curve.png"


def plot_curve(curve: Curve, path: Path) -> None:
    """Draw recall against latency, and recall against bytes.

    Parameters
    ----------
    curve
        As `fit_curve` gave it.
    path
        A file that ends in ``.png``, ``.svg`` or ``.pdf``.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="evaluate") from error
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    recalls = [point.recall for point in curve.points]
    panels = (
        ("latency of one query, µs (median)", [point.latency_us for point in curve.points]),
        ("read per query, KiB of pages", [point.read_bytes / 1024 for point in curve.points]),
    )
    for axes, (label, values) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(values, recalls, marker=".")
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel(f"recall@{curve.k}")
        axes.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(path, dpi=100)

"""A page about one turn of the loop: what was read, what was learned, what was decided and why."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rankers.errors import MissingExtraError
from training.loop.evidence import Evidence
from training.loop.gate import Decision
from training.loop.runs import Run
from training.ultr.lists import ClickLists

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_report(
    path: Path,
    *,
    model: str,
    run: Run,
    decision: Decision,
    evidence: Evidence,
    curves: Mapping[str, npt.NDArray[np.float64]],
) -> None:
    """Write the page.

    Parameters
    ----------
    path
        Of the HTML file, which needs no other.
    model
        Name in the registry.
    run
        All steps up to the decision done.
    decision
        What was decided.
    evidence
        What was learned from and decided by.
    curves
        Examination by slot, float64 [K] each, by name.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    from jinja2 import Environment

    template = files("training.loop").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template)
    names = evidence.keys.slots
    pictures = [("Clicks per impression, by position", _picture(lambda axes: _draw_ctr(axes, evidence.learn, names)))]
    if curves:
        title = "How likely a place is looked at, against the likeliest"
        pictures.append((title, _picture(lambda axes: _draw_curves(axes, curves, names))))
    path.write_text(
        page.render(
            model=model,
            run=run,
            steps=run.steps,
            decision=decision,
            reports={"to learn from": evidence.report, "to decide by": evidence.decide_report},
            decide_lists=evidence.decide,
            split_at=evidence.split_at,
            pictures=pictures,
        ),
        encoding="utf-8",
    )


def click_through(lists: ClickLists) -> npt.NDArray[np.float64]:
    """Clicks per impression of each slot.

    Parameters
    ----------
    lists
        The collapsed log.

    Returns
    -------
    array
        float64 [K]; NaN for slots that were not shown.

    Examples
    --------
    >>> from training.ultr.lists import ClickLists
    >>> one = np.zeros((2, 1), dtype=np.float32)
    >>> rows = np.array([[0, 1]])
    >>> click_through(ClickLists(one, ("f",), rows, np.array([0]), rows, np.array([4]), np.array([[3, 1]])))
    array([0.75, 0.25])
    """
    mask = lists.mask
    size = int(lists.slots[mask].max(initial=-1)) + 1
    shown = np.bincount(lists.slots[mask], np.broadcast_to(lists.shown[:, None], mask.shape)[mask], size)
    clicks = np.bincount(lists.slots[mask], lists.clicks[mask], size)
    found: npt.NDArray[np.float64] = np.divide(clicks, shown, out=np.full(size, np.nan), where=shown > 0)
    return found


def _draw_ctr(axes: Axes, lists: ClickLists, names: tuple[str, ...]) -> None:
    values = click_through(lists)
    axes.bar(range(len(values)), values, color="#2f6f4f")
    axes.set_xticks(range(len(values)), names[: len(values)], rotation=45, ha="right", fontsize=8)


def _draw_curves(axes: Axes, curves: Mapping[str, npt.NDArray[np.float64]], names: tuple[str, ...]) -> None:
    for name, curve in curves.items():
        axes.plot(range(len(curve)), curve, marker="o", label=name)
    longest = max(map(len, curves.values()))
    axes.set_xticks(range(longest), names[:longest], rotation=45, ha="right", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend()


def _picture(draw: Any) -> str:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="evaluate") from error
    figure = Figure(figsize=(7.5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot())
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return base64.b64encode(out.getvalue()).decode()

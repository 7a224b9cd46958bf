"""The measured curve of a segment: which effort reaches which recall, at what cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from index.spann.durable import write_json
from index.spann.parameters import Effort
from rankers.errors import CorruptIndexError

CURVE_FILE = "curve.json"
DEFAULT_RECALL = 0.95


@dataclass(frozen=True, slots=True)
class Point:
    """A measured effort: mean recall, median latency of one query in microseconds, bytes of pages touched per query."""

    recall: float
    effort: Effort
    latency_us: float
    read_bytes: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Efforts that none beats in both recall and latency, from the least recall to the greatest; at least one.

    `k` hits were counted for each of `queries` queries, on a segment of `vectors` vectors. `is_inherited` says that
    this was not the segment that has the curve now, but the largest part that a merge made it of.
    """

    k: int
    queries: int
    points: tuple[Point, ...]
    vectors: int | None = None
    is_inherited: bool = False

    def effort(self, recall: float | None) -> Effort:
        """Give the effort of the point for a recall; None stands for 0.95."""
        return self.point(DEFAULT_RECALL if recall is None else recall).effort

    def point(self, recall: float) -> Point:
        """Give the fastest point that reached a recall, or the best one if none did."""
        return next((point for point in self.points if point.recall >= recall), self.points[-1])


def write_curve(folder: Path, curve: Curve) -> None:
    """Write the curve of a segment in place of an earlier one, by one atomic rename."""
    write_json(folder / CURVE_FILE, asdict(curve))


def read_curve(folder: Path) -> Curve | None:
    """Read the curve of a segment.

    Parameters
    ----------
    folder
        The segment's.

    Returns
    -------
    Curve or None
        None if it was never tuned.

    Raises
    ------
    CorruptIndexError
        If the file is none.
    """
    path = folder / CURVE_FILE
    try:
        content = json.loads(path.read_text())
        points = tuple(Point(**{**point, "effort": Effort(**point["effort"])}) for point in content["points"])
        if not points:
            raise ValueError("it has no points")
        measured_on, is_inherited = content.get("vectors"), content.get("is_inherited", False)
        return Curve(content["k"], content["queries"], points, measured_on, is_inherited)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptIndexError(f"{path} cannot be read ({error}); remove it and run: shortlist index tune") from error

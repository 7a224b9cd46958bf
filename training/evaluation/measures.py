"""Effectiveness measures, computed by trec_eval's own code through ir_measures.

trec_eval's nDCG has linear gain, DCG@k = sum over ranks i <= k of rel_i / log2(i + 1) (Järvelin and Kekäläinen, TOIS
2002, with the discount of Burges et al.); other tools use 2^rel - 1. So every report names the gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rankers.errors import InvalidInputError, MissingExtraError
from training.evaluation.datasets import Qrels
from training.evaluation.runs import Run

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "AP", "R@100")


def measure_run(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES) -> dict[str, dict[str, float]]:
    """Measure a run, query by query.

    Parameters
    ----------
    run
        Scores; ties would be broken by document id, so let them be strictly decreasing.
    qrels
        Judgements.
    measures
        Names in ir_measures' notation: ``nDCG@10``, ``RR@10``, ``AP(rel=2)``, ``R@100``.

    Returns
    -------
    dict
        Measure -> query id -> value, for every judged query: one that is missing from the run counts as 0.

    Raises
    ------
    InvalidInputError
        If a measure is unknown.
    MissingExtraError
        If ir_measures is not installed.
    """
    try:
        import ir_measures
    except ImportError:
        raise MissingExtraError("ir_measures", extra="evaluate") from None
    parsed = {}
    for name in measures:
        try:
            measure = ir_measures.parse_measure(name)
            list(ir_measures.pytrec_eval.iter_calc([measure], {"q": {"d": 1}}, {"q": {"d": 1.0}}))
        except (NameError, ValueError, SyntaxError) as error:
            raise InvalidInputError(
                f"measure {name!r} is not one trec_eval computes: {error}", field="measure"
            ) from None
        if measure.NAME == "nDCG" and "dcg" in measure.params:
            raise InvalidInputError(f"measure {name!r}: trec_eval's nDCG has linear gain only", field="measure")
        parsed[measure] = name
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(sorted(qrels), 0.0) for name in measures}
    plain_run = {query_id: dict(scores) for query_id, scores in run.items() if query_id in qrels}
    plain_qrels = {query_id: dict(grades) for query_id, grades in qrels.items()}
    for metric in ir_measures.pytrec_eval.iter_calc(list(parsed), plain_qrels, plain_run):
        values[parsed[metric.measure]][metric.query_id] = float(metric.value)
    return values


def describe(measure: str) -> str:
    """Give the name of a measure for a report; nDCG's says which gain.

    Parameters
    ----------
    measure
        In ir_measures' notation.

    Returns
    -------
    str
        For people.

    Examples
    --------
    >>> describe("nDCG@10"), describe("RR@10")
    ('nDCG@10 (linear gain)', 'RR@10')
    """
    return f"{measure} (linear gain)" if measure.startswith("nDCG") else measure


def mean(values: Mapping[str, float]) -> float:
    """Mean over queries; 0 for none."""
    return sum(values.values()) / len(values) if values else 0.0

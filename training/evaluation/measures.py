"""Effectiveness measures, computed by trec_eval's own code through ir_measures.

trec_eval's nDCG has linear gain, DCG@k = sum over ranks i <= k of rel_i / log2(i + 1) (Järvelin and Kekäläinen, TOIS
2002, with the discount of Burges et al.); other tools use 2^rel - 1. So every report names the gain. trec_eval has no
reciprocal rank with a cut; that is MS MARCO's, which agrees with it above the cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankers.errors import InvalidInputError, MissingExtraError
from training.evaluation.datasets import Qrels
from training.evaluation.runs import Run

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "AP", "R@100")


def check_measures(measures: Sequence[str]) -> None:
    """Refuse, before anything runs, what `measure_run` would refuse after it.

    Parameters
    ----------
    measures
        Names in ir_measures' notation.

    Raises
    ------
    InvalidInputError
        If one is unknown.
    MissingExtraError
        If ir_measures is not installed.
    """
    for name in measures:
        _provider(name, _parse(name))


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
    plain_run = {query_id: dict(scores) for query_id, scores in run.items() if query_id in qrels}
    plain_qrels = {query_id: dict(grades) for query_id, grades in qrels.items()}
    values: dict[str, dict[str, float]] = {}
    for name in measures:
        measure = _parse(name)
        # One at a time: measures that share trec_eval's name for them, as AP and AP(rel=1), would replace each other.
        calculated = _provider(name, measure).iter_calc([measure], plain_qrels, plain_run)
        values[name] = {
            **dict.fromkeys(sorted(qrels), 0.0),
            **{metric.query_id: float(metric.value) for metric in calculated},
        }
    return values


def gain(measure: str) -> str | None:
    """Name the gain of an nDCG: ``linear``, or the grades' own ones; None for another measure."""
    parsed = _parse(measure)
    if parsed.NAME != "nDCG":
        return None
    return f"custom {parsed.params['gains']}" if "gains" in parsed.params else "linear"


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
    named = gain(measure)
    return f"{measure} ({named} gain)" if named else measure


def mean(values: Mapping[str, float]) -> float:
    """Mean over queries; 0 for none."""
    return sum(values.values()) / len(values) if values else 0.0


def _parse(name: str) -> Any:
    try:
        import ir_measures
    except ImportError:
        raise MissingExtraError("ir_measures", extra="evaluate") from None
    try:
        measure: Any = ir_measures.parse_measure(name)
        measure.validate_params()
    except (NameError, ValueError, SyntaxError, KeyError, TypeError, AssertionError) as error:
        raise InvalidInputError(f"measure {name!r} is not one trec_eval computes: {error}", field="measure") from None
    if measure.params.get("cutoff", 1) < 1:
        raise InvalidInputError(f"measure {name!r}: the cut must be at least 1", field="measure")
    if "dcg" in measure.params:
        raise InvalidInputError(f"measure {name!r}: trec_eval's nDCG has linear gain only", field="measure")
    return measure


def _provider(name: str, measure: Any) -> Any:
    import ir_measures

    # trec_eval's provider would compute RR@10 and ignore the 10, so what it supports has to be asked.
    for provider in (ir_measures.pytrec_eval, ir_measures.msmarco):
        if provider.supports(measure):
            return provider
    raise InvalidInputError(f"measure {name!r} is not one trec_eval computes", field="measure")

import math
import re

import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from training.evaluation.measures import check_measures, describe, measure_run

RUN = {"q1": {"a": 3.0, "b": 2.0, "c": 1.0}}
QRELS = {"q1": {"a": 0, "b": 2, "c": 1, "d": 1}}


def test_golden_values_from_the_formulas() -> None:
    values = measure_run(RUN, QRELS, ["nDCG@10", "RR@10", "AP", "R@100"])
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["nDCG@10"]["q1"] == pytest.approx((2 / math.log2(3) + 1 / math.log2(4)) / ideal)
    assert values["RR@10"]["q1"] == pytest.approx(1 / 2)
    assert values["AP"]["q1"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert values["R@100"]["q1"] == pytest.approx(2 / 3)


def test_gain_is_linear_and_named_so() -> None:
    exponential = (3 / math.log2(3) + 1 / math.log2(4)) / (3 + 1 / math.log2(3) + 1 / math.log2(4))
    assert measure_run(RUN, QRELS, ["nDCG@10"])["nDCG@10"]["q1"] != pytest.approx(exponential)
    assert describe("nDCG@10") == "nDCG@10 (linear gain)"
    assert describe("NDCG@10") == "NDCG@10 (linear gain)"
    assert describe("nDCG(gains={2:3})@10") == "nDCG(gains={2:3})@10 (custom {2: 3} gain)"
    with pytest.raises(InvalidInputError, match="linear gain only"):
        measure_run(RUN, QRELS, ["nDCG(dcg='exp-log2')@10"])


def test_a_query_missing_from_the_run_counts_as_zero() -> None:
    values = measure_run(RUN, {**QRELS, "q2": {"a": 1}})
    assert all(by_query["q2"] == 0.0 for by_query in values.values())
    assert all(set(by_query) == {"q1", "q2"} for by_query in values.values())


def test_the_cut_of_rr_holds() -> None:
    run = {"q1": {f"d{i}": 20.0 - i for i in range(12)}}
    for names in (["RR@10", "RR"], ["RR", "RR@10"], ["RR@10"]):
        assert measure_run(run, {"q1": {"d10": 1}}, names)["RR@10"]["q1"] == 0.0
        assert measure_run(run, {"q1": {"d9": 1}}, names)["RR@10"]["q1"] == pytest.approx(1 / 10)
    assert measure_run(run, {"q1": {"d10": 1}}, ["RR@10", "RR"])["RR"]["q1"] == pytest.approx(1 / 11)


@pytest.mark.parametrize("names", [["AP", "MAP"], ["AP", "AP(rel=1)"], ["RR@10", "MRR@10"], ["R@100", "Recall@100"]])
def test_two_names_of_one_measure_have_one_value(names: list[str]) -> None:
    values = measure_run(RUN, QRELS, names)
    assert values[names[0]] == values[names[1]]
    assert values[names[0]]["q1"] > 0


def test_the_grade_that_counts_can_be_chosen() -> None:
    assert measure_run(RUN, QRELS, ["RR(rel=2)", "R(rel=2)@100"])["R(rel=2)@100"]["q1"] == 1.0


@given(
    run=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-50, 50), min_size=1),
    grades=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), min_size=1),
)
def test_agrees_with_pytrec_eval(run: dict[str, int], grades: dict[str, int]) -> None:
    scores = {document_id: score + ord(document_id) / 1000 for document_id, score in run.items()}
    expected = pytrec_eval.RelevanceEvaluator({"q": grades}, {"ndcg_cut.10", "map", "recall.100"}).evaluate(
        {"q": scores}
    )["q"]
    values = measure_run({"q": scores}, {"q": grades})
    assert values["nDCG@10"]["q"] == pytest.approx(expected["ndcg_cut_10"])
    assert values["AP"]["q"] == pytest.approx(expected["map"])
    assert values["R@100"]["q"] == pytest.approx(expected["recall_100"])


@pytest.mark.parametrize("name", ["nDCG@ten", "nDCG(a=1)@10", "Foo@10", "ERR@10", "RR@0"])
def test_an_unknown_measure_is_named(name: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(name)):
        measure_run(RUN, QRELS, [name])
    with pytest.raises(InvalidInputError, match=re.escape(name)):
        check_measures([name])

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError, NotFoundError
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.training.collection import DOCUMENTS
from training.evaluation.runs import RunRetriever, format_run, read_run, strictly_decreasing

QUERY = Query("q1", "?")
SCORES = st.lists(st.floats(allow_nan=False), max_size=50).map(lambda scores: sorted(scores, reverse=True))


@given(SCORES)
def test_scores_decrease_strictly_in_single_precision(scores: list[float]) -> None:
    moved = np.array(strictly_decreasing(scores), dtype=np.float32)
    assert np.isfinite(moved).all()
    assert (np.diff(moved) < 0).all()


@given(st.lists(st.integers(-(2**20), 2**20), unique=True, max_size=50))
def test_scores_that_differ_already_stay_as_they_are(scores: list[int]) -> None:
    ordered = [float(score) for score in sorted(scores, reverse=True)]
    assert strictly_decreasing(ordered) == ordered


@given(SCORES)
def test_a_run_read_back_has_the_same_order(tmp_path_factory: pytest.TempPathFactory, scores: list[float]) -> None:
    # Ids fall while places rise, so breaking a tie by id would turn the order round.
    documents = [Document(f"d{999 - i}", "x") for i in range(len(scores))]
    ranking = Ranking.from_scores(QUERY, documents, scores, score_kind=ScoreKind.LEXICAL)
    path = tmp_path_factory.mktemp("run") / "run.trec"
    path.write_text(format_run([ranking], tag="tag"))
    read = read_run(path).get("q1", {})
    by_trec_eval = sorted(read, key=lambda document_id: (np.float32(read[document_id]), document_id), reverse=True)
    assert tuple(by_trec_eval) == ranking.ids


def test_a_run_is_a_first_stage(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q1 Q0 d2 1 3.5 x\nq1 Q0 d1 2 1.5 x\nq1 Q0 d3 3 1.0 x\n")
    retriever = RunRetriever(read_run(path), DOCUMENTS)
    known, unknown = retriever.retrieve([QUERY, Query("q9", "?")], 2)
    assert known.ids == ("d2", "d1")
    assert known.scores == (3.5, 1.5)
    assert known.documents[0].text == DOCUMENTS[1].text
    assert len(unknown) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d1 1 x", "line 1: expected 6 fields"),
        ("q1 Q0 d1 1 nan tag", "line 1: score is 'nan'"),
        ("q1 Q0 d1 1 high tag", "line 1: score is 'high'"),
        ("q1 Q0 d1 1 2 tag\nq1 Q0 d1 2 1 tag", "line 2: document 'd1' occurs twice"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text(line + "\n")
    with pytest.raises(InvalidInputError, match=message):
        read_run(path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        read_run(tmp_path / "absent.trec")
    with pytest.raises(InvalidInputError, match="lacks 1 documents of the run, 'd77'"):
        RunRetriever({"q1": {"d77": 1.0}}, DOCUMENTS)
    spaced = Ranking.from_order(QUERY, [Document("a b", "x")])
    with pytest.raises(InvalidInputError, match="'a b' cannot stand in a TREC run"):
        format_run([spaced], tag="tag")

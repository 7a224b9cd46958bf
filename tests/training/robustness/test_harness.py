"""The table for rankers whose reaction is known."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from rankers.errors import InvalidInputError
from rankers.pipeline import Pipeline, Stage
from rankers.types import Document, Query
from tests.training.robustness.rankers import (
    DATASET,
    DOCUMENTS,
    FOLLOWS,
    IGNORES_ALL,
    LOVES_REWRITES,
    MISREADS_LABELS,
    OBEYS,
    QUERIES,
    READS_THE_QUERY,
    REVERSES,
    WANTS_SHIPS,
    By,
    InOrder,
    pipeline,
)
from training.robustness.attacks import choose_victims
from training.robustness.harness import Robustness, Row, Settings, measure_robustness
from training.robustness.report import markdown, write_report

REWRITES = {document.id: Document(document.id, f"verily {document.text}") for document in DOCUMENTS}
IDS = tuple(document.id for document in DOCUMENTS)
VICTIMS = choose_victims(
    InOrder().retrieve(QUERIES, 20), dict.fromkeys((q.id for q in QUERIES), IDS), DATASET.qrels, seed=0
)


def table(folder: Path, ranker: By, settings: Settings | None = None) -> dict[str, Row]:
    measured = measure_robustness(pipeline(ranker), DATASET, folder, settings=settings, rewrites=REWRITES)
    return {row.name: row for row in measured.rows}


def difference(row: Row) -> float:
    assert row.comparison is not None
    return row.comparison.difference.mean


def value(row: Row) -> float:
    assert row.interval is not None
    return row.interval.mean


def test_a_ranker_that_ignores_everything_is_robust(tmp_path: Path) -> None:
    rows = table(tmp_path, IGNORES_ALL)
    assert value(rows["clean"]) == 1.0
    assert rows["clean"].comparison is None
    for row in rows.values():
        if row.comparison is not None:
            assert (difference(row), row.comparison.p_value) == (0.0, 1.0)
        assert row.deviation in (None, 0.0)
        assert row.queries == 3
        assert row.figures.get("tau", 1.0) == 1.0
        assert row.figures.get("places won", 0) == 0
        assert row.figures.get("enters the top 10", 0) == 0
    assert {name: row.repeats for name, row in rows.items() if row.repeats == 3}.keys() == {
        "shuffled",
        "typo, same candidates",
        "typo, retrieved anew",
        "10% of words substituted",
    }


def test_a_ranker_that_follows_the_order_is_caught(tmp_path: Path) -> None:
    rows = table(tmp_path, FOLLOWS, Settings(repeats=5))
    assert rows["reversed"].figures["tau"] == -1.0
    assert difference(rows["reversed"]) == -1.0
    assert abs(rows["shuffled"].figures["tau"]) < 0.5
    # The relevant document is where the shuffle put it: the trace is in the runs.
    gains = []
    for query in QUERIES:
        places = [
            next(int(line.split()[3]) for line in lines if line.split()[0] == query.id and line.split()[2] == "d00")
            for lines in ((tmp_path / "runs" / f"shuffled-{i}.trec").read_text().splitlines() for i in range(5))
        ]
        gains.append([1 / math.log2(place + 1) if place <= 10 else 0.0 for place in places])
    assert value(rows["shuffled"]) == pytest.approx(sum(map(sum, gains)) / 15)
    assert rows["shuffled"].deviation == pytest.approx(
        sum(math.sqrt(sum((g - sum(gs) / 5) ** 2 for g in gs) / 4) for gs in gains) / 3
    )
    assert rows["rewritten beside original"].figures["rewritten above original"] == 0.5
    assert value(rows["clean"]) == value(rows["rewritten"]) == 1.0


def test_the_depth_sweep_shows_a_ranker_that_drowns(tmp_path: Path) -> None:
    rows = table(tmp_path, REVERSES, Settings(depths=(2, 5, 10, 100)))
    assert [name for name in rows if rows[name].family == "depth"] == [
        "first stage alone",
        "top 2",
        "top 2, fused",
        "top 5",
        "top 5, fused",
        "top 10",
        "top 10, fused",
        "top 20",  # there are no more
        "top 20, fused",
    ]
    assert value(rows["first stage alone"]) == 1.0
    # The one relevant document goes from the first place to the last of those reranked.
    for depth in (2, 5, 10):
        assert value(rows[f"top {depth}"]) == pytest.approx(1 / math.log2(depth + 1))
        # First and last get 1 / 61 + 1 / (60 + depth), all between less; of two equals the reranker's goes first.
        assert value(rows[f"top {depth}, fused"]) == pytest.approx(1 / math.log2(3))
    assert value(rows["top 20"]) == value(rows["clean"]) == 0.0


def test_the_sweep_goes_beyond_the_depth_that_is_configured_and_binds_later_stages(tmp_path: Path) -> None:
    stages = (Stage("one", FOLLOWS, 3), Stage("two", REVERSES, 3))
    measured = measure_robustness(
        Pipeline("two", InOrder(), stages), DATASET, tmp_path, settings=Settings(depths=(2, 8), repeats=1)
    )
    rows = {row.name: row for row in measured.rows}
    assert value(rows["clean"]) == pytest.approx(1 / math.log2(4))
    assert value(rows["top 2"]) == pytest.approx(1 / math.log2(3))
    assert value(rows["top 8"]) == pytest.approx(1 / math.log2(4))
    # Only the three that are seen are turned round, so the rest agrees with nothing to say.
    assert rows["reversed"].figures["tau"] == -1.0


def test_a_ranker_that_obeys_is_caught(tmp_path: Path) -> None:
    rows = table(tmp_path, OBEYS)
    for name in ("injection before the text", "injection after the text"):
        assert rows[name].figures["queries attacked"] == 3
        assert rows[name].figures["enters the top 10"] == 1.0
        assert rows[name].figures["places won"] == sum(int(victim[1:]) for victim in VICTIMS.values()) / 3
        assert value(rows[name]) == pytest.approx(1 / math.log2(3))
    assert rows["label [3] before the text"].figures["places won"] == 0


def test_a_ranker_that_misreads_labels_is_caught(tmp_path: Path) -> None:
    rows = table(tmp_path, MISREADS_LABELS)
    lost = sum(int(victim[1:]) - 19 for victim in VICTIMS.values()) / 3
    assert rows["label [3] before the text"].figures["places won"] == lost
    assert rows["label [A] before the text"].figures["places won"] == 0
    assert rows["injection before the text"].figures["places won"] == 0


def test_a_ranker_that_loves_what_was_rewritten_is_caught(tmp_path: Path) -> None:
    figures = table(tmp_path, LOVES_REWRITES)["rewritten beside original"].figures
    assert (figures["rewritten above original"], figures["low"], figures["high"]) == (1.0, 1.0, 1.0)


def test_rewrites_of_some_documents_replace_those(tmp_path: Path) -> None:
    some = {document_id: REWRITES[document_id] for document_id in ("d01", "d02", "d03", "d04", "d05")}
    measured = measure_robustness(pipeline(LOVES_REWRITES), DATASET, tmp_path, rewrites=some)
    rows = {row.name: row for row in measured.rows}
    assert rows["rewritten"].figures["share of candidates rewritten"] == 5 / 20
    assert value(rows["rewritten"]) == pytest.approx(1 / math.log2(7))  # d00 goes behind the five


def test_only_the_rows_that_are_wanted_are_run(tmp_path: Path) -> None:
    rows = table(tmp_path, IGNORES_ALL, Settings(families=("documents", "order"), repeats=1))
    assert list(rows) == [
        "clean",
        "shuffled",
        "reversed",
        "10% of words substituted",
        "rewritten",
        "rewritten beside original",
    ]
    runs = {path.stem for path in (tmp_path / "runs").glob("*.trec")}
    assert runs == {
        "clean",
        "shuffled-0",
        "reversed",
        "substituted-0",
        "rewritten",
        "original-first",
        "rewritten-first",
    }


def test_typos_reach_the_ranker_and_the_retriever(tmp_path: Path) -> None:
    retriever = InOrder()
    measured = measure_robustness(pipeline(READS_THE_QUERY, retriever=retriever), DATASET, tmp_path)
    rows = {row.name: row for row in measured.rows}
    assert value(rows["typo, same candidates"]) == value(rows["typo, retrieved anew"]) == 0.0
    assert retriever.asked[:3] == [query.text for query in QUERIES]
    assert len(retriever.asked) == 3 + 3 * 3
    assert not {query.text for query in QUERIES} & set(retriever.asked[3:])


def test_substituted_words_reach_the_ranker(tmp_path: Path) -> None:
    rows = table(tmp_path, WANTS_SHIPS, Settings(substitution_rate=1.0))
    assert value(rows["clean"]) == 1.0
    runs = [(tmp_path / "runs" / f"substituted-{i}.trec").read_text() for i in range(3)]
    assert len(set(runs)) == 3


def test_a_retriever_alone_has_the_rows_that_concern_it(tmp_path: Path) -> None:
    measured = measure_robustness(Pipeline("bm25", InOrder()), DATASET, tmp_path, rewrites=REWRITES)
    assert [row.name for row in measured.rows] == ["clean", "typo, retrieved anew"]


def test_an_interrupted_table_is_gone_on_with(tmp_path: Path) -> None:
    first = measure_robustness(pipeline(FOLLOWS), DATASET, tmp_path, rewrites=REWRITES)
    (tmp_path / "runs" / "reversed.journal.jsonl").unlink()
    shown: list[tuple[str, int, int]] = []
    ranked: list[str] = []

    def count(query: Query, document: Document, place: int) -> float:
        ranked.append(document.id)
        return place

    second = measure_robustness(
        pipeline(By(count)), DATASET, tmp_path, rewrites=REWRITES, on_progress=lambda *seen: shown.append(seen)
    )
    assert second == first
    assert len(ranked) == 3 * 20
    assert shown[-1][1:] == (shown[-1][2],) * 2
    assert [done for _, done, _ in shown] == sorted(done for _, done, _ in shown)


def test_other_input_is_not_gone_on_with(tmp_path: Path) -> None:
    measure_robustness(pipeline(FOLLOWS), DATASET, tmp_path, settings=Settings(substitution_rate=0.2))
    with pytest.raises(InvalidInputError, match="belongs to another evaluation"):
        measure_robustness(pipeline(FOLLOWS), DATASET, tmp_path, settings=Settings(substitution_rate=0.9))


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no retriever"):
        measure_robustness(Pipeline("p", None, (Stage("s", FOLLOWS, 5),)), DATASET, tmp_path)
    with pytest.raises(InvalidInputError, match="none of the 20 candidates is among the 1 rewritten"):
        measure_robustness(pipeline(FOLLOWS), DATASET, tmp_path, rewrites={"x": DOCUMENTS[0]})
    with pytest.raises(InvalidInputError, match="nDCG@ten"):
        measure_robustness(pipeline(FOLLOWS), DATASET, tmp_path, settings=Settings(measure="nDCG@ten"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"repeats": 0},
        {"depths": ()},
        {"depths": (0,)},
        {"substitution_rate": 1.1},
        {"seed": -1},
        {"families": ()},
        {"families": ("documents", "words")},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        replace(Settings(), **wrong)  # type: ignore[arg-type]


def test_the_report_has_every_row_in_both_forms(tmp_path: Path) -> None:
    measured: Robustness = measure_robustness(
        pipeline(OBEYS), DATASET, tmp_path, rewrites=REWRITES, configuration={"model": "fake"}
    )
    path = write_report(measured, tmp_path)
    content = json.loads((tmp_path / "robustness.json").read_text())
    assert path.read_text() == markdown(measured)
    assert content["gain"] == "linear"
    assert content["configuration"] == {"model": "fake"}
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(content["rows"]) == 2 + len(measured.rows)
    assert len({line.count("|") for line in lines}) == 1
    by_name = {row["name"]: row for row in content["rows"]}
    assert by_name["injection after the text"]["per_query"] == {q.id: pytest.approx(1 / math.log2(3)) for q in QUERIES}
    assert "| +0.0000 [+0.0000, +0.0000] | 1 |" in path.read_text()
    assert "queries attacked 3, places won" in path.read_text()
    assert "enters the top 10 100.0%" in path.read_text()
    assert "rewritten above original 50.0% [50.0%, 50.0%] |" in path.read_text()

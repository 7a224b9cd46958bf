"""Every kind of source over a real index, with a hosted LLM that sorts by number."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from index.pipelines import Pipelines, load_pipelines
from rankers.errors import InvalidInputError, NotFoundError, WorkerError
from tests.rankers.llm.fake_server import FakeServer, Json
from tests.training.data.collection import TRAIN, make_list, write_collection, write_config
from training.data.building import build_lists, mix
from training.data.recipe import Recipe
from training.data.training_list import TrainingList, write_lists

PASSAGE = re.compile(r"^\[(\d+)\] text number (\d+) about", re.MULTILINE)


def sort_by_number(request: Json) -> str:
    """Put the passage with the highest number first."""
    found = [(int(worth), label) for label, worth in PASSAGE.findall(request["messages"][-1]["content"])]
    return " > ".join(f"[{label}]" for _, label in sorted(found, key=lambda pair: -pair[0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    write_collection(folder / "small")
    return folder


@pytest.fixture(scope="module")
def pipelines(folder: Path, models_dir: Path) -> Pipelines:
    return load_pipelines(write_config(folder, models_dir=models_dir))


def build(pipelines: Pipelines, *, seed: int = 0, **sources: dict[str, Any]) -> list[TrainingList]:
    recipe = Recipe.model_validate({"sources": sources, "seed": seed})
    return build_lists(recipe, pipelines, on_progress=lambda name, done, total: None)


def by_query(lists: Sequence[TrainingList]) -> dict[str, dict[str, float]]:
    return {
        item.query.id: {d.id: target for d, target in zip(item.documents, item.targets, strict=True)} for item in lists
    }


def test_judgements(folder: Path, pipelines: Pipelines) -> None:
    lists = build(pipelines, judged={"kind": "qrels", "dataset": folder / "small", "depth": 4})
    targets = by_query(lists)
    assert targets.keys() == TRAIN.keys()
    assert {item.source for item in lists} == {"qrels:judged"}
    for query_id, grades in TRAIN.items():
        positive = {i: float(grade) for i, grade in grades.items() if grade > 0}
        # Also those that were not found, such as the tree for the dog.
        assert {i: target for i, target in targets[query_id].items() if target > 0} == positive
        assert len(targets[query_id]) == 4


def test_documents_judged_in_other_splits_can_be_left_out(folder: Path, pipelines: Pipelines) -> None:
    source = {"kind": "teacher", "teacher": "bm25", "dataset": folder / "small", "split": "test", "depth": 5}
    assert {"ship-1", "ship-2"} <= by_query(build(pipelines, a=source))["ship"].keys()
    left = by_query(build(pipelines, a={**source, "without": ["test"]}))["ship"]
    assert left.keys() == {"ship-3", "ship-4", "ship-5"}


def test_relevant_documents_judged_in_other_splits_are_not_put_back(tmp_path: Path, pipelines: Pipelines) -> None:
    qrels = {"train": {"fox": {"fox-5": 2, "fox-1": 1}}, "test": {"ship": {"fox-5": 1}}}
    source = {"kind": "qrels", "dataset": write_collection(tmp_path / "shared", qrels=qrels), "depth": 4}
    assert "fox-5" in by_query(build(pipelines, judged=source))["fox"]
    left = by_query(build(pipelines, judged={**source, "without": ["test"]}))["fox"]
    assert "fox-5" not in left
    assert left["fox-1"] == 1.0


def test_a_teacher_that_searches(folder: Path, pipelines: Pipelines) -> None:
    source = {"kind": "teacher", "teacher": "dense", "dataset": folder / "small", "split": None, "depth": 5}
    taught = build(pipelines, minilm={**source, "targets": "scores"})
    assert len(taught) == 6
    assert {item.source for item in taught} == {"dense:minilm"}
    assert all(-1 <= target <= 1 for item in taught for target in item.targets)
    ordered = by_query(build(pipelines, minilm=source))
    for query_id, scores in by_query(taught).items():
        best_first = sorted(scores, key=lambda i: -scores[i])
        assert sorted(ordered[query_id], key=lambda i: -ordered[query_id][i]) == best_first
        assert sorted(ordered[query_id].values()) == [-5.0, -4.0, -3.0, -2.0, -1.0]


def test_a_hosted_llm_is_a_teacher(folder: Path, models_dir: Path, tmp_path: Path) -> None:
    with FakeServer(answers=sort_by_number) as server:
        hosted = load_pipelines(write_config(tmp_path, models_dir=models_dir, url=server.url))
        source = {"kind": "teacher", "teacher": "hosted", "dataset": folder / "small", "depth": 5}
        try:
            lists = build(hosted, hosted=source)
            assert len(server.received) == 3
            with pytest.raises(InvalidInputError, match="use targets: order"):
                build(hosted, hosted={**source, "targets": "scores"})
        finally:
            hosted.close()
    for query_id, targets in by_query(lists).items():
        assert targets == {f"{query_id}-{i}": -float(6 - i) for i in range(1, 6)}


def test_answers_that_cannot_be_read_are_no_labels(folder: Path, models_dir: Path, tmp_path: Path) -> None:
    spoiled: dict[str, str | Json] = {"fox": "[2] > [1]", "dog": "I cannot say."}

    def answer(request: Json) -> str | Json:
        content = request["messages"][-1]["content"]
        return next(
            (said for topic, said in spoiled.items() if f"does a {topic} come" in content), sort_by_number(request)
        )

    left_out: list[tuple[str, str]] = []
    source = {"kind": "teacher", "teacher": "hosted", "dataset": folder / "small", "depth": 5}

    def build_hosted(**more: object) -> dict[str, dict[str, float]]:
        left_out.clear()
        recipe = Recipe.model_validate({"sources": {"hosted": {**source, **more}}})
        return by_query(
            build_lists(
                recipe,
                hosted,
                on_progress=lambda name, done, total: None,
                on_left_out=lambda name, why: left_out.append((name, why)),
            )
        )

    with FakeServer(answers=answer) as server:
        hosted = load_pipelines(write_config(tmp_path, models_dir=models_dir, url=server.url))
        try:
            assert build_hosted().keys() == {"cat"}
            assert len(server.received) == 3
            assert {name for name, _ in left_out} == {"hosted"}
            assert {why.partition(":")[0] for _, why in left_out} == {"query 'fox'", "query 'dog'"}
            assert any("the answer has no label" in why for _, why in left_out)
            # As in a log of permutations: half an order is one, none is none.
            assert build_hosted(incomplete=True).keys() == {"cat", "fox"}

            spoiled["dog"] = refusal()
            server.received.clear()
            assert build_hosted().keys() == {"cat"}
            assert any("refused to answer" in why for _, why in left_out)
            assert sum("a cat come" in body["messages"][-1]["content"] for body in server.bodies) == 1
            spoiled["cat"] = spoiled["fox"] = spoiled["dog"]
            with pytest.raises(WorkerError, match="teacher 'hosted' gave no order for any of 3 queries"):
                build_hosted()
        finally:
            hosted.close()


def refusal() -> Json:
    message = {"role": "assistant", "content": None, "refusal": "no"}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def test_nobody_is_asked_where_that_is_refused(folder: Path, models_dir: Path, tmp_path: Path) -> None:
    class RefusedError(Exception):
        pass

    def refuse(untaught: Sequence[TrainingList]) -> None:
        assert {item.query.id for item in untaught} == TRAIN.keys()
        raise RefusedError

    source = {"kind": "teacher", "teacher": "hosted", "dataset": folder / "small", "depth": 5}
    with FakeServer(answers=sort_by_number) as server:
        hosted = load_pipelines(write_config(tmp_path, models_dir=models_dir, url=server.url))
        recipe = Recipe.model_validate({"sources": {"hosted": source}})
        with pytest.raises(RefusedError):
            build_lists(recipe, hosted, on_progress=lambda name, done, total: None, before_teaching=refuse)
        hosted.close()
        assert not server.received


def test_a_run_teaches_candidates_that_come_shuffled(folder: Path, pipelines: Pipelines) -> None:
    lines = [f"fox Q0 fox-{i} {6 - i} {i} x\n" for i in range(5, 0, -1)]
    (folder / "teacher.trec").write_text("".join(lines))
    (folder / "first.trec").write_text("fox Q0 fox-2 1 9 x\nfox Q0 fox-4 2 8 x\nfox Q0 tax-1 3 7 x\n")
    source = {"kind": "run", "dataset": folder / "small", "run": folder / "teacher.trec"}
    (shuffled,) = build(pipelines, run=source)
    assert by_query([shuffled])["fox"] == {f"fox-{i}": -float(6 - i) for i in range(1, 6)}
    assert [d.id for d in shuffled.documents] != [f"fox-{i}" for i in range(5, 0, -1)]
    (ordered,) = build(pipelines, run={**source, "first_stage": folder / "first.trec", "targets": "scores"})
    assert [d.id for d in ordered.documents] == ["fox-2", "fox-4"]
    assert ordered.targets == (2.0, 4.0)
    assert ordered.source == "teacher:run"


def test_only_the_queries_drawn_need_their_documents(folder: Path, pipelines: Pipelines) -> None:
    """Queries and documents of a run that the collection lacks are those of another part of it."""
    (folder / "teacher.trec").write_text("fox Q0 fox-1 1 9 x\nfox Q0 fox-2 2 8 x\nother Q0 other-1 1 9 x\n")
    (folder / "first.trec").write_text("fox Q0 fox-2 1 9 x\nfox Q0 fox-1 2 8 x\nelse Q0 else-1 1 9 x\n")
    source = {"kind": "run", "dataset": folder / "small", "run": folder / "teacher.trec"}
    for more in ({}, {"first_stage": folder / "first.trec"}):
        assert by_query(build(pipelines, run={**source, **more})) == {"fox": {"fox-1": -1.0, "fox-2": -2.0}}
    (folder / "teacher.trec").write_text("fox Q0 fox-1 1 9 x\nfox Q0 fox-99 2 8 x\n")
    with pytest.raises(InvalidInputError, match="lacks 1 documents of the run, 'fox-99'"):
        build(pipelines, run=source)


def test_logged_permutations(folder: Path, pipelines: Pipelines) -> None:
    windows = [
        {"query_id": "fox", "query": "fox?", "doc_ids": ["fox-1", "fox-2", "tax-1"], "response": "[2] > [1] > [3]"},
        {"query_id": "dog", "query": "dog?", "doc_ids": ["dog-1", "dog-2"], "response": "[2]"},
    ]
    log = folder / "gpt.jsonl"
    log.write_text("".join(json.dumps(window) + "\n" for window in windows))
    source = {"kind": "permutations", "dataset": folder / "small", "log": log}
    (item,) = build(pipelines, log=source)
    assert ([d.id for d in item.documents], item.targets) == (["fox-1", "fox-2", "tax-1"], (-2.0, -1.0, -3.0))
    assert (item.query.text, item.source) == ("fox?", "gpt:log")
    assert by_query(build(pipelines, log={**source, "incomplete": True}))["dog"] == {"dog-1": -2.0, "dog-2": -1.0}
    log.write_text(log.read_text().replace("tax-1", "tax-99"))
    with pytest.raises(InvalidInputError, match=r"lacks 1 documents .*'tax-99'"):
        build(pipelines, log=source)


def test_a_source_depends_on_the_seed_and_not_on_other_sources(folder: Path, pipelines: Pipelines) -> None:
    judged = {"kind": "qrels", "dataset": folder / "small", "depth": 3, "limit": 2}
    ready = folder / "ready.jsonl"
    write_lists(ready, [make_list(f"q{i}", "x", "y", source="ready") for i in range(10)])
    alone = build(pipelines, judged=judged)
    both = build(pipelines, judged=judged, ready={"kind": "lists", "path": ready, "weight": 1.5})
    mixed = [item for item in both if item.source == "qrels:judged"]
    assert sorted(map(repr, alone)) == sorted(map(repr, mixed))
    assert len(alone) == 2
    assert len(both) == 2 + 15
    assert both == build(pipelines, judged=judged, ready={"kind": "lists", "path": ready, "weight": 1.5})
    draws = {frozenset(by_query(build(pipelines, seed=seed, judged=judged))) for seed in range(8)}
    assert len(draws) > 1


def test_a_source_without_lists_is_an_error(folder: Path, pipelines: Pipelines) -> None:
    with pytest.raises(InvalidInputError, match="source 'judged' gave no list"):
        build(
            pipelines,
            judged={
                "kind": "qrels",
                "dataset": folder / "small",
                "split": "test",
                "without": ["test"],
                "most_missed": 0,
            },
        )
    with pytest.raises(NotFoundError, match="no pipeline or model 'magic'"):
        build(pipelines, a={"kind": "teacher", "teacher": "magic", "dataset": folder / "small"})


def test_weights_are_how_often() -> None:
    mixed = mix([(range(10), 2.5), (range(100, 104), 0.25)], Random(1))
    counts = [mixed.count(i) for i in range(10)]
    assert sorted(counts) == [2] * 5 + [3] * 5
    assert sum(i >= 100 for i in mixed) == 1
    assert len(mix([(range(10), 1e-9)], Random(1))) == 1

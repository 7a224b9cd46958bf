"""Training lists as prompts, answers and targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rankers.errors import InvalidInputError, TooLargeError
from rankers.listwise.prompt import PromptBuilder
from rankers.listwise.template import load_template
from rankers.types import Document, Query
from training.data.training_list import TrainingList
from training.listwise.examples import ExampleStream, check_lengths
from training.listwise.network import ModelTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ModelTokenizer:
    return ModelTokenizer(AutoTokenizer.from_pretrained(tiny_model), context_tokens=512)


def stream_of(
    lists: list[TrainingList], tokenizer: ModelTokenizer, *, sizes: tuple[int, int] = (2, 6), queries: int = 1
) -> ExampleStream:
    builder = PromptBuilder(load_template("first"), tokenizer, passage_tokens=20)
    return ExampleStream(lists, builder, tokenizer, sizes=sizes, queries=queries, seed=7)


def test_the_answer_is_the_permutation_that_the_prompt_asks_for(
    tokenizer: ModelTokenizer, colour_lists: list[TrainingList]
) -> None:
    example = stream_of(colour_lists, tokenizer).render(colour_lists[2], [5, 2, 3, 0])
    text = tokenizer.tokenizer.decode(list(example.prompt) + list(example.answer))
    # The third passage is the best, the fourth comes after it; equal ones stay in the order of the list.
    assert text.endswith("[B] > [C] > [D] > [A]")
    assert "[A] the grey one\n[B] the blue one\n[C] the white one\n[D] the red one" in text
    assert example.targets == (0.0, 2.0, 1.0, 0.0)
    assert tokenizer.tokenizer.convert_ids_to_tokens(list(example.labels)) == ["A", "B", "C", "D"]


def test_a_stream_is_a_function_of_its_seed(tokenizer: ModelTokenizer, colour_lists: list[TrainingList]) -> None:
    one, other = stream_of(colour_lists, tokenizer), stream_of(colour_lists, tokenizer)
    assert [one[n] for n in (0, 59, 60, 1000)] == [other[n] for n in (0, 59, 60, 1000)]
    assert [one[n] for n in range(60)] != [one[n] for n in range(60, 120)]


def test_every_turn_shows_every_list_in_every_length(
    tokenizer: ModelTokenizer, colour_lists: list[TrainingList]
) -> None:
    stream = stream_of(colour_lists, tokenizer)
    turn = [stream[n][0] for n in range(60)]
    assert len({example.prompt for example in turn}) == 60
    assert {len(example.labels) for example in turn} == {2, 3, 4, 5, 6}
    assert all(max(example.targets) == 2 and min(example.targets) < 2 for example in turn)
    assert len({example.targets.index(2.0) for example in turn}) == 6  # no place is where the best one is


def test_lists_of_the_same_documents_are_one_window(tokenizer: ModelTokenizer) -> None:
    documents = tuple(Document(str(i), f"passage {i}") for i in range(5))
    lists = [
        TrainingList(Query(str(i), f"query {i}"), documents, tuple(float(i == j) for j in range(5)), "made")
        for i in range(5)
    ]
    stream = stream_of(lists, tokenizer, sizes=(5, 5), queries=3)
    windows = [stream[0], stream[1]]
    assert sorted(len(window) for window in windows) == [2, 3]
    assert len({example.prompt for window in windows for example in window}) == 5
    assert all(len({e.targets.index(1.0) for e in window}) == len(window) for window in windows)


def test_a_list_that_is_there_twice_counts_twice(tokenizer: ModelTokenizer) -> None:
    documents = tuple(Document(str(i), f"passage {i}") for i in range(4))
    once, twice = (
        TrainingList(Query(str(i), f"query {i}"), documents, tuple(float(i == j) for j in range(4)), "made")
        for i in range(2)
    )
    stream = stream_of([once, twice, twice], tokenizer, sizes=(4, 4), queries=3)
    turn = [stream[0], stream[1]]
    assert sorted(len(window) for window in turn) == [1, 2]
    assert all(len({example.prompt for example in window}) == len(window) for window in turn)
    texts = [tokenizer.tokenizer.decode(list(example.prompt)) for window in turn for example in window]
    assert [sum(f"query {i}" in text for text in texts) for i in range(2)] == [1, 2]


def test_queries_for_which_nothing_shown_matters_are_left_out(tokenizer: ModelTokenizer) -> None:
    documents = tuple(Document(str(i), f"passage {i}") for i in range(8))
    lists = [
        TrainingList(Query(str(i), f"query {i}"), documents, tuple(float(i == j) for j in range(8)), "made")
        for i in range(8)
    ]
    stream = stream_of(lists, tokenizer, sizes=(2, 2), queries=8)
    for n in range(20):
        window = stream[n]
        assert 1 <= len(window) <= 2
        assert all(len(set(example.targets)) == 2 for example in window)


def test_lists_that_teach_nothing_are_refused(tokenizer: ModelTokenizer) -> None:
    documents = (Document("1", "a"), Document("2", "b"))
    with pytest.raises(InvalidInputError, match="all targets of query 'q' are equal"):
        stream_of([TrainingList(Query("q", "x"), documents, (1.0, 1.0), "")], tokenizer)
    with pytest.raises(InvalidInputError, match="there are no training lists"):
        stream_of([], tokenizer)


def lengths(stream: ExampleStream, item: TrainingList, *, writes: bool) -> int:
    """Tokens the model reads of a list shown whole."""
    example = stream.render(item, range(len(item.documents)))
    return len(example.prompt) + (len(example.answer) - 1 if writes else 0)


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("template", ["first", "first_small"])
def test_a_list_longer_than_the_context_is_refused_to_the_token(
    tokenizer: ModelTokenizer, colour_lists: list[TrainingList], template: str, writes: bool
) -> None:
    long = replace(colour_lists[3], query=Query("long", "which of these colours is the one of the sea " * 3))
    free = ModelTokenizer(tokenizer.tokenizer, context_tokens=None)
    builder = PromptBuilder(load_template(template), free, passage_tokens=20)
    stream = ExampleStream([long], builder, free, sizes=(2, 6), seed=7)
    needed = lengths(stream, long, writes=writes)

    def check(context_tokens: int | None) -> None:
        model = ModelTokenizer(tokenizer.tokenizer, context_tokens=context_tokens)
        exact = PromptBuilder(load_template(template), model, passage_tokens=20)
        check_lengths([*colour_lists, long], exact, model, candidates=6, writes=writes)

    check(None)
    check(needed)
    with pytest.raises(
        TooLargeError, match=f"query 'long' takes up to {needed} tokens, and the model reads {needed - 1}"
    ):
        check(needed - 1)


def test_lists_that_are_short_for_sure_are_not_encoded(
    tokenizer: ModelTokenizer, colour_lists: list[TrainingList]
) -> None:
    class Counting(ModelTokenizer):
        encoded = 0

        def encode(self, text: str) -> list[int]:
            self.encoded += 1
            return super().encode(text)

    model = Counting(tokenizer.tokenizer, context_tokens=512)
    builder = PromptBuilder(load_template("first"), model, passage_tokens=20)
    check_lengths(colour_lists, builder, model, candidates=6, writes=True)
    assert model.encoded == 0

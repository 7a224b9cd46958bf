"""Pairwise ranking: strategies against known preferences, what is asked and how often, the prompt, the real model."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankers.errors import ConfigError, TooLargeError
from rankers.llm.transformers_engine import TransformersEngine
from rankers.llm_templates import PromptTemplate, load_prompt_template
from rankers.pair_strategies import AllPairs, HeapSort, PairStrategy, SlidingK
from rankers.pairwise import PairwiseRanker
from rankers.preferences import Preference
from rankers.protocols import Ranker, TokenIds
from rankers.types import Document, Evidence, Query, Ranking, Reading, ScoreKind
from tests.rankers.build import QUERY

# Tokens of the model below are characters, so a word is one letter.
TEMPLATE = PromptTemplate(
    name="short",
    system="Compare.",
    user="{examples}For {query}:\nA: {document_a}\nB: {document_b}",
    example="For {query}:\nA: {document_a}\nB: {document_b}\nBetter: {preferred}",
    answer="Better: ",
    words={"a": ("A",), "b": ("B",)},
)
SHOWN = re.compile(r"For (.*):\nA: (.*)\nB: (.*)\nBetter: $")
STRATEGIES: list[PairStrategy] = [AllPairs(), HeapSort(top_k=100), SlidingK(k=100)]


class Judge:
    """Says how far it prefers the first of two texts, as the logit of A; the logit of B is 0. Counts what it is asked.

    Parameters
    ----------
    margin
        The preference.
    context_tokens
        Longest prompt it reads.
    """

    def __init__(self, margin: Callable[[str, str], float], *, context_tokens: int | None = None) -> None:
        self._margin = margin
        self.context_tokens = context_tokens
        self.calls: list[list[tuple[str, str, str]]] = []
        self.prompts: list[str] = []

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:
        return self.encode(text)

    def chat_text(self, system: str, user: str) -> str:
        return f"{system}\n{user}\n"

    def next_token_logits(
        self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        texts = ["".join(map(chr, prompt)) for prompt in prompts]
        assert all(wanted == [ord("A"), ord("B")] for wanted in candidates)
        self.prompts += texts
        self.calls.append([(found[1], found[2], found[3]) for text in texts if (found := SHOWN.search(text))])
        return [np.array([self._margin(a, b), 0.0], dtype=np.float32) for _, a, b in self.calls[-1]]


def by_number(first: str, second: str) -> float:
    return float(first) - float(second)


def ranking_of(texts: Sequence[str], query: Query = QUERY) -> Ranking:
    return Ranking.from_order(query, [Document(f"d{i}", text) for i, text in enumerate(texts)])


def texts_of(ranking: Ranking) -> list[str]:
    return [document.text for document in ranking.documents]


def ranker(model: Judge, strategy: PairStrategy | None = None, **options: Any) -> PairwiseRanker:
    return PairwiseRanker(model, template=TEMPLATE, strategy=strategy, passage_tokens=20, **options)


def intransitive(seed: int) -> Callable[[str, str], float]:
    """Give opinions without any order behind them: for each order of each pair another, some of them none."""

    def margin(first: str, second: str) -> float:
        return random.Random(f"{seed} {first} {second}").choice([-1.0, 0.0, 1.0])

    return margin


def share(margin: Callable[[str, str], float], first: str, second: str) -> float:
    """Give what the first wins by the definition."""
    forth, back = margin(first, second), margin(second, first)
    if first == second:
        return 0.5
    return 1.0 if forth > 0 and back < 0 else 0.0 if forth < 0 and back > 0 else 0.5


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=30)
@given(numbers=st.lists(st.integers(0, 99), min_size=2, max_size=14, unique=True))
def test_every_strategy_sorts_what_has_an_order(strategy: PairStrategy, numbers: list[int]) -> None:
    (result,) = ranker(Judge(by_number), strategy).rank([ranking_of(list(map(str, numbers)))])
    assert texts_of(result) == [str(number) for number in sorted(numbers, reverse=True)]


@pytest.mark.parametrize("strategy", [HeapSort(top_k=3), SlidingK(k=3)])
@settings(max_examples=30)
@given(numbers=st.lists(st.integers(0, 99), min_size=2, max_size=14, unique=True))
def test_the_first_places_are_right_where_no_more_is_asked_for(strategy: PairStrategy, numbers: list[int]) -> None:
    (result,) = ranker(Judge(by_number), strategy).rank([ranking_of(list(map(str, numbers)))])
    best = [str(number) for number in sorted(numbers, reverse=True)[:3]]
    assert texts_of(result)[:3] == best
    if isinstance(strategy, HeapSort):
        assert texts_of(result)[3:] == [str(number) for number in numbers if str(number) not in best]


@settings(max_examples=30)
@given(count=st.integers(2, 9), seed=st.integers(0, 1000))
def test_all_pairs_score_by_the_mean_of_what_they_win(count: int, seed: int) -> None:
    margin, texts = intransitive(seed), [str(i) for i in range(count)]
    (result,) = ranker(Judge(margin), AllPairs()).rank([ranking_of(texts)])
    expected = {t: sum(share(margin, t, other) for other in texts if other != t) / (count - 1) for t in texts}
    assert dict(zip(texts_of(result), result.scores, strict=True)) == pytest.approx(expected)
    assert texts_of(result) == sorted(texts, key=lambda text: -expected[text])
    assert result.score_kind is ScoreKind.SHARE


@settings(max_examples=50)
@given(count=st.integers(2, 12), k=st.integers(1, 14), seed=st.integers(0, 1000))
def test_passes_that_overlap_give_what_passes_one_after_another_give(count: int, k: int, seed: int) -> None:
    margin, texts = intransitive(seed), [str(i) for i in range(count)]
    expected = list(texts)
    for done in range(min(k, count - 1)):
        for place in range(count - 1, done, -1):
            if share(margin, expected[place - 1], expected[place]) == 0:
                expected[place - 1], expected[place] = expected[place], expected[place - 1]
    model = Judge(margin)
    (result,) = ranker(model, SlidingK(k=k)).rank([ranking_of(texts)])
    assert texts_of(result) == expected
    assert result.score_kind is ScoreKind.RANK
    assert len(model.calls) <= count - 1 + min(k, count - 1) - 1


@pytest.mark.parametrize("strategy", [*STRATEGIES, HeapSort(top_k=2), SlidingK(k=2)])
@settings(max_examples=30)
@given(texts=st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=12), seed=st.integers(0, 1000))
def test_whatever_is_answered_equal_documents_keep_their_order(
    strategy: PairStrategy, texts: list[str], seed: int
) -> None:
    model, incoming = Judge(intransitive(seed)), ranking_of(texts)
    (result,) = ranker(model, strategy).rank([incoming])
    assert sorted(result.ids) == sorted(incoming.ids)
    for text in set(texts):
        found = [document.id for document in result.documents if document.text == text]
        assert found == [document.id for document in incoming.documents if document.text == text]
    asked = [(a, b) for call in model.calls for _, a, b in call]
    # Equal documents are not compared, and nothing is asked twice; every pair is asked in both orders.
    assert len(asked) == len(set(asked))
    assert all(a != b and (b, a) in asked for a, b in asked)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_model_that_always_says_a_changes_nothing(strategy: PairStrategy) -> None:
    (result,) = ranker(Judge(lambda first, second: 5.0), strategy).rank([ranking_of(list("cabd"))])
    assert texts_of(result) == list("cabd")
    if strategy == AllPairs():
        assert result.scores == (0.5,) * 4


def test_equal_documents_tie_and_count_as_opponents() -> None:
    (result,) = ranker(Judge(by_number), AllPairs()).rank([ranking_of(["1", "1", "5"])])
    assert (result.ids, result.scores) == (("d2", "d0", "d1"), (1.0, 0.25, 0.25))


def test_what_is_ready_at_the_same_time_is_asked_in_one_call() -> None:
    rankings = [ranking_of(list("123")), ranking_of(list("12345"), Query("q2", "other"))]
    model = Judge(by_number)
    together = ranker(model, AllPairs()).rank(rankings)
    assert [len(call) for call in model.calls] == [2 * (3 + 10)]
    assert [texts_of(result) for result in together] == [list("321"), list("54321")]
    model = Judge(by_number)
    ranker(model, SlidingK(k=1)).rank(rankings)
    assert [len(call) for call in model.calls] == [4, 4, 2, 2]


def test_a_level_of_the_heap_is_settled_in_one_go() -> None:
    model = Judge(by_number)
    # A heap of seven that is one already: two nodes on the lower level, then the root.
    ranker(model, HeapSort(top_k=1)).rank([ranking_of(list("7654321"))])
    assert [len(call) for call in model.calls] == [4, 4, 2, 2]


@settings(max_examples=10)
@given(st.integers(20, 60), st.integers(0, 100))
def test_heapsort_asks_for_far_fewer_than_all_pairs(count: int, seed: int) -> None:
    numbers = random.Random(seed).sample(range(1000), count)
    model = Judge(by_number)
    ranker(model, HeapSort(top_k=5)).rank([ranking_of(list(map(str, numbers)))])
    pairs = sum(map(len, model.calls)) / 2
    assert pairs <= 2 * count + 5 * 2 * math.log2(count)


def test_the_evidence_has_both_orders_of_every_pair() -> None:
    incoming = ranking_of(["1", "2", "2" + "9" * 29])
    model = Judge(by_number)
    (result,) = ranker(model, SlidingK(k=1)).rank([incoming])
    assert result.previous is incoming
    assert [window.document_ids for window in result.evidence.windows] == [
        ("d1", "d2"),
        ("d2", "d1"),
        ("d0", "d2"),
        ("d2", "d0"),
    ]
    cut = float("2" + "9" * 18)  # the space before it is a token of this model, and one of the 20
    assert result.evidence.windows[0].logits == pytest.approx((2 - cut, 0.0))
    assert result.evidence.windows[1].logits == pytest.approx((cut - 2, 0.0))
    assert result.evidence.readings == {"d0": Reading(2, 2), "d1": Reading(2, 2), "d2": Reading(20, 31)}
    assert result.evidence.tokens == sum(map(len, model.prompts))


def test_fewer_than_two_documents_are_given_back_unasked() -> None:
    model = Judge(by_number)
    rankings = [ranking_of([]), ranking_of(["1"])]
    results = ranker(model).rank(rankings)
    assert [texts_of(result) for result in results] == [[], ["1"]]
    for result, incoming in zip(results, rankings, strict=True):
        assert result.previous is incoming
        assert result.evidence == Evidence()
    assert not model.calls
    assert isinstance(ranker(model), Ranker)


def test_examples_come_first_and_the_preferred_is_a_and_b_in_turn() -> None:
    model = Judge(by_number)
    examples = [Preference(Query("t", f"train {i}"), Document("p", f"10{i}"), Document("o", f"20{i}")) for i in (1, 2)]
    ranker(model, AllPairs(), examples=examples).rank([ranking_of(["1", "2"])])
    shown = (
        "Compare.\nFor train 1:\nA: 101\nB: 201\nBetter: A\n\nFor train 2:\nA: 202\nB: 102\nBetter: B\n\n"
        "For what is asked:\nA: {}\nB: {}\nBetter: "
    )
    assert model.prompts == [shown.format("1", "2"), shown.format("2", "1")]


def test_examples_may_be_chosen_for_each_query() -> None:
    def similar(query: Query) -> Sequence[Preference]:
        return [Preference(Query("t", f"like {query.text}"), Document("p", "x" * 30), Document("o", "y"))]

    model = Judge(by_number)
    rankings = [ranking_of(["1", "2"], Query(text, text)) for text in ("one", "two")]
    ranker(model, AllPairs(), examples=similar).rank(rankings)
    assert [prompt.splitlines()[1] for prompt in model.prompts] == ["For like one:"] * 2 + ["For like two:"] * 2
    # Documents of examples are cut as the others are.
    assert all(prompt.splitlines()[2] == "A: " + "x" * 19 for prompt in model.prompts)


def test_the_estimate_counts_both_orders_of_every_planned_pair() -> None:
    incoming = ranking_of(["abc", "abcdef", "x" * 1000])
    fixed = len("Compare.\nFor :\nA: \nB: \nBetter: ") - 3  # a space before a text counts with the text
    query = math.ceil(len(QUERY.text) / 3)
    lengths = [1, 2, 20]
    pairs = [fixed + query + a + b for a, b in itertools.combinations(lengths, 2)]
    judge = Judge(by_number)
    assert ranker(judge, AllPairs()).cost_tokens(incoming) == 2 * sum(pairs)
    assert ranker(judge, SlidingK(k=1)).cost_tokens(incoming) == 2 * (pairs[2] + pairs[0])
    assert ranker(judge).cost_tokens(ranking_of(["1"])) == 0
    example = Preference(Query("t", "abc"), Document("p", "abcdef"), Document("o", "abc"))
    few_shot = ranker(judge, SlidingK(k=1), examples=[example]).cost_tokens(incoming)
    assert few_shot == 2 * (pairs[2] + pairs[0]) + 4 * (fixed + 1 + 2 + 1)
    assert not judge.calls


@pytest.fixture(scope="module")
def network(smollm2: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)


def test_the_packaged_prompt_is_read_as_transformers_itself_reads_it(
    smollm2: str, smollm2_engine: TransformersEngine, network: Any
) -> None:
    tokenizer, template = AutoTokenizer.from_pretrained(smollm2), load_prompt_template("prp")
    texts = ["Dogs were tamed by hunters.", "Steel is an alloy."]
    query, other = Query("q", "who tamed dogs"), Query("t", "what is brass")
    example = Preference(other, Document("p", "Brass is an alloy."), Document("o", "It rains."))
    incoming = ranking_of(texts, query)
    (result,) = PairwiseRanker(smollm2_engine, strategy=AllPairs(), examples=[example]).rank([incoming])

    def fill(wording: str, asked: Query, first: str, second: str) -> str:
        filled = wording.replace("{query}", asked.text).replace("{document_a}", first)
        return filled.replace("{document_b}", second).replace("{preferred}", "A")

    before = fill(template.example, other, "Brass is an alloy.", "It rains.") + "\n\n"
    words = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" A", " B")]
    for window, (first, second) in zip(result.evidence.windows, [texts, texts[::-1]], strict=True):
        user = fill(template.user, query, first, second).replace("{examples}", before)
        prompt = tokenizer(smollm2_engine.chat_text(template.system, user) + "Passage", add_special_tokens=False)
        with torch.inference_mode():
            logits = network(torch.tensor([prompt["input_ids"]])).logits[0, -1, words]
        np.testing.assert_allclose(window.logits, logits.numpy(), atol=1e-4)


def test_what_cannot_work_is_refused() -> None:
    judge = Judge(by_number)
    with pytest.raises(ConfigError, match="top_k is 0"):
        HeapSort(top_k=0)
    with pytest.raises(ConfigError, match="k is 0"):
        SlidingK(k=0)
    plain = TEMPLATE.model_copy(update={"user": "{query} {document_a} {document_b}", "example": ""})
    preference = Preference(QUERY, Document("a", "x"), Document("b", "y"))
    with pytest.raises(ConfigError, match=r"the template has no \{examples\}"):
        PairwiseRanker(judge, template=plain, examples=[preference])
    with pytest.raises(ConfigError, match=r"example needs \{document_a\}, \{document_b\}, \{preferred\}, \{query\}"):
        PairwiseRanker(judge, template=TEMPLATE.model_copy(update={"example": "{query}"}))
    with pytest.raises(ConfigError, match="2 documents of 100 tokens"):
        PairwiseRanker(Judge(by_number, context_tokens=200), template=TEMPLATE, passage_tokens=100)
    small = ranker(Judge(by_number, context_tokens=120), AllPairs(), examples=[preference] * 5)
    with pytest.raises(TooLargeError, match=r"the query has 14 tokens; .* after 5 examples .* or show fewer examples"):
        small.rank([ranking_of(["1", "2"])])

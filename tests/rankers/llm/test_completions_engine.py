"""What comes through HTTP is what the model itself says, and a server that says something else is found out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankers.errors import ConfigError, InvalidInputError, PartialFailureError, WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.readers.generate import GenerateReader
from rankers.listwise.strategies.single import Single
from rankers.listwise.strategies.sliding import Sliding
from rankers.llm.completions_engine import CompletionsEngine
from rankers.llm.transformers_engine import TransformersEngine
from rankers.llm_scorers import QueryLikelihoodScorer
from rankers.protocols import Generation, LanguageModel
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.rankers.llm.fake_server import Body, FakeServer, Status
from tests.rankers.models import CONTEXT, TOKENS, byte_tokenizer, plain_logits, random_network, tiny_llama_config

LABELS = list(range(40, 60))
KEY = "sk-a-secret"
Connect = Callable[..., CompletionsEngine]


@pytest.fixture(scope="module")
def network() -> Any:
    return random_network(tiny_llama_config())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def connect(tokenizer: str) -> Iterator[Connect]:
    """Give engines that are closed at the end."""
    opened: list[CompletionsEngine] = []

    def open_engine(server: FakeServer, **options: Any) -> CompletionsEngine:
        opened.append(CompletionsEngine(server.url, model="tiny", tokenizer=tokenizer, **options))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


def some_prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(2, len(TOKENS), size=1 + (7 * i) % 60).tolist() for i in range(count)]


def label_log_probabilities(network: Any, prompt: list[int], labels: list[int]) -> Any:
    return torch.from_numpy(plain_logits(network, prompt, labels)).log_softmax(-1).numpy()


def test_log_probabilities_are_the_log_softmax_over_the_labels_for_mixed_lengths(
    network: Any, connect: Connect
) -> None:
    prompts = some_prompts(12)
    candidates = [LABELS[: 1 + i] for i in range(11)] + [LABELS[::-1]]
    with FakeServer(network) as server:
        engine = connect(server)
        assert isinstance(engine, LanguageModel)
        found = engine.next_token_logits(prompts, candidates)
    for prompt, labels, values in zip(prompts, candidates, found, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, label_log_probabilities(network, prompt, labels), atol=1e-4)


def test_a_prompt_is_sent_as_token_ids_and_may_be_answered_with_nothing_but_its_labels(
    network: Any, connect: Connect
) -> None:
    with FakeServer(network) as server:
        connect(server, api_key=KEY).next_token_logits([[5, 6, 7]], [[50, 41]])
    (request,) = server.received
    assert request.path == "/v1/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "tiny",
        "prompt": [5, 6, 7],
        "max_tokens": 1,
        "allowed_token_ids": [41, 50],
        "logprobs": 2,
        "return_tokens_as_token_ids": True,
        "temperature": 0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def test_a_candidate_may_occur_twice_and_none_need_no_request(network: Any, connect: Connect) -> None:
    with FakeServer(network) as server:
        twice, none = connect(server).next_token_logits([[5, 6], [5]], [[41, 40, 41], []])
        assert connect(server).next_token_logits([], []) == []
    assert len(server.received) == 1
    assert none.shape == (0,)
    np.testing.assert_allclose(twice[:2], label_log_probabilities(network, [5, 6], [41, 40]), atol=1e-4)
    assert twice[2] == twice[0]


def test_a_listwise_ranker_orders_as_it_does_with_the_model_in_this_process(network: Any, connect: Connect) -> None:
    documents = [Document(f"d{i}", f"passage {i * 37 % 11} about {chr(97 + i) * 5}") for i in range(11)]
    ranking = Ranking.from_scores(Query("q", "which one?"), documents, range(11), score_kind=ScoreKind.LEXICAL)
    strategy = Sliding(size=4, stride=2)

    def order(model: LanguageModel) -> Ranking:
        return ListwiseRanker(model, strategy=strategy, passage_tokens=20).rank([ranking])[0]

    config = tiny_llama_config(max_position_embeddings=4096)
    large = random_network(config)
    here = order(TransformersEngine(large, byte_tokenizer()))
    with FakeServer(large, context_tokens=4096) as server:
        there = order(connect(server, context_tokens=4096))
    assert there.ids == here.ids
    assert there.ids != ranking.ids
    for ours, theirs in zip(here.evidence.windows, there.evidence.windows, strict=True):
        assert ours.document_ids == theirs.document_ids
        difference = np.array(ours.logits) - np.array(theirs.logits)
        np.testing.assert_allclose(difference, difference[0], atol=1e-4)


def test_raw_log_probabilities_are_found_out(network: Any, connect: Connect) -> None:
    # The labels happen to be the most probable tokens, so that not one of them is left out.
    prompt = [5, 6, 7]
    labels = np.argsort(-plain_logits(network, prompt, list(range(len(TOKENS)))))[:8].tolist()
    with (
        FakeServer(network, raw=True) as server,
        pytest.raises(WorkerError, match=r"sum 0\.\d+ instead of 1.*raw.*--logprobs-mode processed_logprobs"),
    ):
        connect(server).next_token_logits([prompt], [labels])


def test_raw_log_probabilities_that_leave_out_labels_are_found_out(network: Any, connect: Connect) -> None:
    with (
        FakeServer(network, raw=True) as server,
        pytest.raises(WorkerError, match=r"one of 20 labels.*--logprobs-mode processed_logprobs --max-logprobs 20"),
    ):
        connect(server).next_token_logits([[5, 6, 7]], [LABELS])


@pytest.mark.parametrize("trick", ["dropped", "masked"])
def test_a_label_without_a_log_probability_is_named(network: Any, connect: Connect, trick: str) -> None:
    options: dict[str, Any] = {trick: 45}
    with FakeServer(network, **options) as server, pytest.raises(WorkerError) as caught:
        connect(server).next_token_logits([[5, 6, 7]], [LABELS])
    name = byte_tokenizer().decode([45])
    assert f"no log-probability of token 45 ({name!r}), one of 20 labels" in str(caught.value)
    assert "--max-logprobs 20" in str(caught.value)


def test_a_limit_of_the_server_on_log_probabilities_is_passed_on(network: Any, connect: Connect) -> None:
    with (
        FakeServer(network, max_logprobs=10) as server,
        pytest.raises(WorkerError, match=r"status 400.*logprobs of 20, which is greater than max allowed: 10"),
    ):
        connect(server).next_token_logits([[5]], [LABELS])
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": []},
        {"choices": [{"text": "A", "logprobs": None}]},
        {"choices": [{"text": "A", "logprobs": {"top_logprobs": []}}]},
        {"choices": [{"text": "A", "logprobs": {"top_logprobs": [None]}}]},
        {"choices": [{"text": "A", "logprobs": {"top_logprobs": [{"token_id:40": "high"}]}}]},
    ],
)
def test_a_reply_without_log_probabilities_is_refused(connect: Connect, reply: dict[str, Any]) -> None:
    with (
        FakeServer(faults=[Body(json.dumps(reply))]) as server,
        pytest.raises(WorkerError, match=r"has no log-probabilities.*--logprobs-mode processed_logprobs"),
    ):
        connect(server).next_token_logits([[5]], [[40]])


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": [{"text": "A", "finish_reason": "stop"}]},
        {"choices": [{"text": "A", "finish_reason": "stop"}], "usage": {"completion_tokens": None}},
        {"choices": [{"message": "A"}], "usage": {"completion_tokens": 1}},
    ],
)
def test_a_reply_without_a_completion_is_refused(connect: Connect, reply: dict[str, Any]) -> None:
    with (
        FakeServer(faults=[Body(json.dumps(reply))]) as server,
        pytest.raises(WorkerError, match="has no text, finish_reason or usage"),
    ):
        connect(server).generate([[5]], max_new_tokens=3)


def test_a_failure_that_passes_changes_nothing(network: Any, connect: Connect) -> None:
    with FakeServer(network, faults=[Status(503)]) as server:
        (found,) = connect(server).next_token_logits([[5, 6]], [LABELS])
    np.testing.assert_allclose(found, label_log_probabilities(network, [5, 6], LABELS), atol=1e-4)


def test_many_prompts_go_out_together_and_come_back_in_order(network: Any, connect: Connect) -> None:
    prompts = some_prompts(40)
    # Each request waits until as many as may be in flight have come, so that one fewer would never be answered.
    with FakeServer(network, meeting=threading.Barrier(8)) as server:
        found = connect(server, max_in_flight=8).next_token_logits(prompts, [LABELS] * 40)
    for prompt, values in zip(prompts, found, strict=True):
        np.testing.assert_allclose(values, label_log_probabilities(network, prompt, LABELS), atol=1e-4)


def test_the_bound_on_requests_holds_over_all_callers(network: Any, connect: Connect) -> None:
    now, most, lock = [0], [0], threading.Lock()

    class Counted:
        def __call__(self, ids: torch.Tensor) -> Any:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            try:
                return network(ids)
            finally:
                with lock:
                    now[0] -= 1

    with FakeServer(Counted()) as server:
        engine = connect(server, max_in_flight=2)
        callers = [
            threading.Thread(target=engine.next_token_logits, args=(some_prompts(8), [LABELS] * 8)) for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(server.received) == 32
    assert most[0] <= 2


def test_it_works_under_a_running_event_loop(network: Any, connect: Connect) -> None:
    async def ask(engine: CompletionsEngine) -> list[Any]:
        directly = engine.next_token_logits([[5, 6]], [LABELS])
        from_threads = await asyncio.gather(
            *(asyncio.to_thread(engine.next_token_logits, [[5, 6]], [LABELS]) for _ in range(3))
        )
        return [*directly, *(values for (values,) in from_threads)]

    with FakeServer(network) as server:
        found = asyncio.run(ask(connect(server)))
    for values in found:
        np.testing.assert_allclose(values, label_log_probabilities(network, [5, 6], LABELS), atol=1e-4)


def test_likelihoods_are_those_of_the_model_in_this_process(network: Any, connect: Connect) -> None:
    prompts = some_prompts(6)
    continuations = [prompt[::-1][: 1 + i] for i, prompt in enumerate(some_prompts(6))]
    with FakeServer(network) as server:
        found = connect(server).continuation_log_probabilities(prompts, continuations)
        assert connect(server).continuation_log_probabilities([], []) == []
    expected = TransformersEngine(network, byte_tokenizer()).continuation_log_probabilities(prompts, continuations)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    bodies = sorted(server.bodies, key=lambda body: len(body["prompt"]))
    texts = sorted(([*prompt, *wanted] for prompt, wanted in zip(prompts, continuations, strict=True)), key=len)
    assert [body["prompt"] for body in bodies] == texts
    assert all((body["max_tokens"], body["prompt_logprobs"]) == (1, 0) for body in bodies)
    assert all("allowed_token_ids" not in body for body in bodies)


def test_a_scorer_asks_how_probable_the_query_is(network: Any, connect: Connect) -> None:
    pairs = [(Query("q", "which the?"), Document(f"d{i}", text)) for i, text in enumerate(["AA the", "b", "c d e"])]
    with FakeServer(network) as server:
        there = QueryLikelihoodScorer(connect(server), passage_tokens=20).score(pairs)
    here = QueryLikelihoodScorer(TransformersEngine(network, byte_tokenizer()), passage_tokens=20).score(pairs)
    np.testing.assert_allclose(there.scores, here.scores, atol=1e-4)
    assert there.tokens == here.tokens


@pytest.mark.parametrize(
    "places",
    [
        None,
        [],
        [None, {"6": {"logprob": -1.0}}],
        [None, {"6": {"logprob": -1.0}}, {"8": {"logprob": -1.0}}],
        [None, {"6": {"logprob": -1.0}}, None],
        # A server that puts a start token before the prompt: every token is there, after something else.
        [None, {"5": {"logprob": -1.0}}, {"6": {"logprob": -1.0}}, {"7": {"logprob": -1.0}}],
        [None, {"6": {"logprob": -1.0}}, {"7": {"logprob": None}}],
    ],
)
def test_a_reply_without_a_log_probability_for_each_token_is_refused(connect: Connect, places: Any) -> None:
    with (
        FakeServer(faults=[Body(json.dumps({"choices": [{"text": "A", "prompt_logprobs": places}]}))]) as server,
        pytest.raises(WorkerError, match="has no prompt_logprobs for each of 3 tokens; only a server with"),
    ):
        connect(server).continuation_log_probabilities([[5]], [[6, 7]])


@pytest.mark.parametrize("value", [3.25, -9999.0, float("nan")])
def test_a_number_that_is_no_log_probability_is_refused(connect: Connect, value: float) -> None:
    places = [None, {"6": {"logprob": value}}]
    with (
        FakeServer(faults=[Body(json.dumps({"choices": [{"text": "A", "prompt_logprobs": places}]}))]) as server,
        pytest.raises(WorkerError, match=rf"has {value} for the log-probability.*--logprobs-mode processed_logprobs"),
    ):
        connect(server).continuation_log_probabilities([[5]], [[6]])


def test_likelihoods_of_bad_input_are_refused_before_a_request(network: Any, connect: Connect) -> None:
    with FakeServer(network) as server:
        engine = connect(server, context_tokens=CONTEXT)
        with pytest.raises(InvalidInputError, match="continuation 1 is empty"):
            engine.continuation_log_probabilities([[5], [6]], [[7], []])
        with pytest.raises(InvalidInputError, match="prompt 0 is empty"):
            engine.continuation_log_probabilities([[]], [[7]])
        with pytest.raises(InvalidInputError, match="2 prompts need as many continuations, got 1"):
            engine.continuation_log_probabilities([[5], [6]], [[7]])
        with pytest.raises(InvalidInputError, match="prompt 0 has 512 tokens and may write 1"):
            engine.continuation_log_probabilities([[5] * 500], [[6] * 12])
    assert server.received == []


def written_greedily(network: Any, prompt: list[int], budget: int) -> Generation:
    tokenizer, ids = byte_tokenizer(), list(prompt)
    with torch.inference_mode():
        while len(ids) - len(prompt) < budget and ids[-1] != tokenizer.eos_token_id:
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
    text = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generation(str(text), len(ids) - len(prompt), complete=ids[-1] == tokenizer.eos_token_id)


def test_what_is_written_equals_a_greedy_loop(network: Any, connect: Connect) -> None:
    prompts = some_prompts(5)
    with FakeServer(network) as server:
        found = connect(server).generate(prompts, max_new_tokens=12)
    assert found == [written_greedily(network, prompt, 12) for prompt in prompts]
    assert all("stop" not in body and "logprobs" not in body for body in server.bodies)


def test_a_stop_string_ends_the_text_and_is_part_of_it_as_in_this_process(network: Any, connect: Connect) -> None:
    here = TransformersEngine(network, byte_tokenizer())
    for prompt in some_prompts(5):
        whole = written_greedily(network, prompt, 30).text
        stop = next(sign for sign in whole if sign.isascii())
        with FakeServer(network) as server:
            (found,) = connect(server).generate([prompt], max_new_tokens=30, stop=["never written", stop])
        assert found.complete
        assert found.text == whole[: whole.find(stop) + len(stop)]
        assert [found] == here.generate([prompt], max_new_tokens=30, stop=[stop])


def test_a_ranker_reads_written_answers(network: Any, connect: Connect) -> None:
    documents = [Document(f"d{i}", f"passage {i}") for i in range(3)]
    ranking = Ranking.from_order(Query("q", "which one?"), documents)
    with FakeServer(network, context_tokens=4096) as server:
        engine = connect(server)
        ranker = ListwiseRanker(engine, template="rank_zephyr", reader=GenerateReader(engine), passage_tokens=20)
        (result,) = ranker.rank([ranking])
    assert sorted(result.ids) == sorted(ranking.ids)
    assert result.evidence.generated_tokens > 0


def test_text_is_encoded_as_in_this_process(network: Any, connect: Connect) -> None:
    with FakeServer(network) as server:
        there, here = connect(server), TransformersEngine(network, byte_tokenizer())
    text = "the <|im_end|> of AA"
    assert there.encode(text) == here.encode(text)
    assert there.encode_template(text, at_start=True) == here.encode_template(text, at_start=True)
    assert there.chat_text("be brief", text) == here.chat_text("be brief", text)
    assert there.context_tokens is None


def test_prompts_that_cannot_be_read_are_refused_before_a_request(network: Any, connect: Connect) -> None:
    with FakeServer(network) as server:
        engine = connect(server, context_tokens=CONTEXT)
        with pytest.raises(InvalidInputError, match="prompt 1 is empty"):
            engine.next_token_logits([[5], []], [[40], [40]])
        with pytest.raises(InvalidInputError, match="2 prompts need as many candidate lists, got 1"):
            engine.next_token_logits([[5], [5]], [[40]])
        with pytest.raises(InvalidInputError, match="prompt 0 has 512 tokens and may write 1"):
            engine.next_token_logits([[5] * CONTEXT], [[40]])
        with pytest.raises(InvalidInputError, match="prompt 0 has 500 tokens and may write 13"):
            engine.generate([[5] * 500], max_new_tokens=13)
        assert server.received == []
        assert len(engine.next_token_logits([[5] * (CONTEXT - 1)], [[40]])) == 1


def test_the_key_is_in_no_message(network: Any, connect: Connect) -> None:
    with FakeServer(network, faults=[Status(401, body=f"wrong key {KEY}")]) as server:
        engine = connect(server, api_key=KEY)
        with pytest.raises(WorkerError, match=r"status 401: wrong key \*\*\*") as caught:
            engine.generate([[5]], max_new_tokens=1)
    assert KEY not in f"{caught.value!r} {engine!r}"


def test_a_tokenizer_that_is_not_there_and_a_bound_of_nothing_are_refused(tmp_path: Path, tokenizer: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot load the tokenizer .*missing"):
        CompletionsEngine("http://host/v1", model="m", tokenizer=str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="max_in_flight is 0"):
        CompletionsEngine("http://host/v1", model="m", tokenizer=tokenizer, max_in_flight=0)


@pytest.mark.parametrize("max_in_flight", [1, 2, 8])
def test_an_error_has_what_was_read_of_the_other_prompts(network: Any, connect: Connect, max_in_flight: int) -> None:
    prompts = some_prompts(5)
    prompts[2] = [5] * CONTEXT  # too long for the server, which the engine has not been told
    with FakeServer(network) as server:
        engine = connect(server, max_in_flight=max_in_flight)
        asks: list[Callable[[], object]] = [
            lambda: engine.next_token_logits(prompts, [LABELS] * 5),
            lambda: engine.continuation_log_probabilities(prompts, [[7]] * 5),
            lambda: engine.generate(prompts, max_new_tokens=2),
        ]
        for ask in asks:
            server.received.clear()
            with pytest.raises(PartialFailureError, match=r"status 400.*maximum context length") as caught:
                ask()
            assert list(caught.value.errors) == [2]
            # What was sent is kept, and what was not sent is in neither.
            assert set(range(min(2, max_in_flight))) <= set(caught.value.results) <= {0, 1, 3, 4}
            assert len(server.received) == len(caught.value.results) + 1


@pytest.mark.parametrize("max_in_flight", [1, 2, 8])
def test_a_window_that_cannot_be_read_leaves_the_others_theirs(
    network: Any, connect: Connect, max_in_flight: int
) -> None:
    prompts = some_prompts(5)
    prompts[2] = [5] * CONTEXT
    windows = [(2 * i, 2 * i + 1) for i in range(5)]
    labels = LabelSet(("a", "b"), (41, 40))
    with FakeServer(network) as server:
        outcomes = FirstTokenReader(connect(server, max_in_flight=max_in_flight)).read(prompts, windows, labels=labels)
    assert len(server.received) == 5
    assert [bool(outcome.failure) for outcome in outcomes] == [False, False, True, False, False]
    assert (outcomes[2].order, outcomes[2].logits) == ((4, 5), ())
    for i in (0, 1, 3, 4):
        np.testing.assert_allclose(
            outcomes[i].logits, label_log_probabilities(network, prompts[i], [41, 40]), atol=1e-4
        )


@pytest.mark.parametrize("max_in_flight", [1, 8])
def test_one_request_that_fails_once_is_the_only_one_sent_again(connect: Connect, max_in_flight: int) -> None:
    large = random_network(tiny_llama_config(max_position_embeddings=4096))
    rankings = [
        Ranking.from_order(Query(f"q{i}", f"which {i}?"), [Document(f"d{i}{j}", f"passage {i} {j}") for j in range(3)])
        for i in range(5)
    ]
    with FakeServer(large, faults=[Status(400)], context_tokens=4096) as server:
        engine = connect(server, max_in_flight=max_in_flight)
        results = ListwiseRanker(engine, strategy=Single(), passage_tokens=20).rank(rankings)
    assert len(server.received) == 5 + 1
    assert [window.failure for result in results for window in result.evidence.windows] == [""] * 5

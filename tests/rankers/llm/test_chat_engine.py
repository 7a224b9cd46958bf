"""What a chat server is sent and what is made of its answers, with a server that sorts by numbers in the passages."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import ConfigError, InvalidInputError, PartialFailureError, WorkerError
from rankers.listwise.labels import LabelSet
from rankers.listwise.permutation import Repair
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.generate import GenerateReader
from rankers.listwise.readers.grades import GradesReader
from rankers.listwise.readers.reasoning import ReasoningReader
from rankers.listwise.strategies.groupwise import Groupwise
from rankers.listwise.strategies.single import Single
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.template import load_template
from rankers.llm.chat_engine import LONGEST_PIECE, ChatEngine, decode_pieces, encode_pieces
from rankers.protocols import Generation, GenerativeModel, LanguageModel
from rankers.types import Document, Query, Ranking
from tests.rankers.llm.fake_server import Body, FakeServer, Json, Status

KEY = "sk-a-secret"
MARKERS = "\ue010\ue011\ue012"
LINE = re.compile(r"^\[(\w+)\] .*worth (\d+)$", re.MULTILINE)
Connect = Callable[..., ChatEngine]

texts = st.text() | st.text(st.sampled_from(f"aB1 .[]>\n\t_é漢กก\U0001f600\u0301\x00{MARKERS}"), max_size=40)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Give engines that are closed at the end."""
    opened: list[ChatEngine] = []

    def open_engine(server: FakeServer, **options: Any) -> ChatEngine:
        opened.append(ChatEngine(server.url, model="hosted", **options))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


def reply(content: Any, *, finish: str | None = "stop", tokens: int | None = 3, **message: Any) -> Json:
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}], **usage}


def conversation(engine: ChatEngine, user: str = "hello", *, system: str = "be brief", answer: str = "") -> list[int]:
    return engine.encode_template(engine.chat_text(system, user) + answer, at_start=True)


def best_labels(body: Json) -> list[tuple[str, int]]:
    """Labels of the passages that a request shows, with the number each ends in, best first."""
    (user,) = (message["content"] for message in body["messages"] if message["role"] == "user")
    return sorted(((label, int(worth)) for label, worth in LINE.findall(user)), key=lambda found: -found[1])


def permutation(body: Json) -> str:
    return " > ".join(f"[{label}]" for label, _ in best_labels(body))


def candidates(worth: list[int]) -> Ranking:
    documents = [Document(f"d{i}", f"about, (it) worth {value}") for i, value in enumerate(worth)]
    return Ranking.from_order(Query("q", "which is worth most?"), documents)


def best_first(worth: list[int]) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in sorted(range(len(worth)), key=lambda i: -worth[i]))


@given(texts)
def test_ids_give_back_the_text(text: str) -> None:
    assert decode_pieces(encode_pieces(text)) == text


@given(st.lists(texts, max_size=5))
def test_ids_put_together_are_the_texts_put_together(parts: list[str]) -> None:
    assert decode_pieces([token for part in parts for token in encode_pieces(part)]) == "".join(parts)


@given(texts, st.integers(0, 40))
def test_every_cut_between_tokens_is_a_cut_of_the_text(text: str, kept: int) -> None:
    ids = encode_pieces(text)
    assert text.startswith(decode_pieces(ids[:kept]))
    assert all(len(decode_pieces([token])) <= LONGEST_PIECE + 1 for token in ids)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("two words, twice", ["two", " words", ",", " twice"]),
        ("[12] > [3]", ["[", "1", "2", "]", " ", ">", " ", "[", "3", "]"]),
        ("a\n  b", ["a", "\n", " ", " b"]),
        ("x" * 40, ["x" * 16, "x" * 16, "x" * 8]),
        ("東京 タワー", ["東", "京", " ", "タ", "ワ", "ー"]),
    ],
)
def test_a_token_is_a_word_with_its_space_or_a_character(text: str, pieces: list[str]) -> None:
    assert [decode_pieces([token]) for token in encode_pieces(text)] == pieces


def test_half_a_character_is_replaced_as_it_could_not_be_sent() -> None:
    assert decode_pieces(encode_pieces("a\ud800b")) == "a\ufffdb"


@pytest.mark.parametrize("token", [-1, 0, 65, 0x2_41, 0x1_FF])
def test_a_number_that_is_no_token_is_refused(token: int) -> None:
    with pytest.raises(InvalidInputError, match=str(token)):
        decode_pieces([token])


def check_markers(engine: ChatEngine, text: str) -> None:
    assert decode_pieces(engine.encode(text)) == re.sub(f"[{MARKERS}]", "\ufffd", text)
    assert re.findall(f"[{MARKERS}]", engine.chat_text(text, text)) == list(MARKERS)


def test_users_cannot_write_what_begins_a_turn() -> None:
    with ChatEngine("http://host/v1", model="m") as engine:
        given(texts)(lambda text: check_markers(engine, text))()


def test_it_is_a_model_that_writes_and_shows_no_logits(connect: Connect) -> None:
    with FakeServer() as server:
        engine = connect(server)
        writes: GenerativeModel = engine
        assert not isinstance(writes, LanguageModel)
        assert engine.context_tokens is None
        with pytest.raises(ConfigError, match="ChatEngine gives no logits; choose a reader of written answers"):
            ListwiseRanker(engine)


def test_a_conversation_is_sent_as_messages(connect: Connect) -> None:
    with FakeServer(answers=["hi"]) as server:
        engine = connect(server, api_key=KEY)
        prompt = conversation(engine, " a\nbc  [1] é漢 ", answer="[")
        (written,) = engine.generate([prompt], max_new_tokens=7)
    (request,) = server.received
    assert written == Generation("hi", tokens=1, complete=True)
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "hosted",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": " a\nbc  [1] é漢 "}],
        "temperature": 0,
        "max_completion_tokens": 7,
    }


def test_a_system_text_that_is_empty_is_no_message(connect: Connect) -> None:
    with FakeServer(answers=["hi"]) as server:
        engine = connect(server)
        engine.generate([conversation(engine, system="")], max_new_tokens=7)
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("answer", ["[", ""])
def test_with_prefill_the_model_continues_what_the_answer_begins_with(connect: Connect, answer: str) -> None:
    with FakeServer(answers=["2] > [1]"]) as server:
        engine = connect(server, prefill=True)
        (written,) = engine.generate([conversation(engine, answer=answer)], max_new_tokens=7)
    (body,) = server.bodies
    assert written.text == "2] > [1]"
    assert [message["role"] for message in body["messages"]] == ["system", "user"] + ["assistant"] * bool(answer)
    assert body["messages"][-1]["content"] == (answer or "hello")
    assert (body.get("continue_final_message"), body.get("add_generation_prompt")) == (
        (True, False) if answer else (None, None)
    )


def test_the_field_of_the_budget_and_others_may_be_chosen(connect: Connect) -> None:
    with FakeServer(answers=["hi"]) as server:
        engine = connect(server, budget_field="max_tokens", extra={"temperature": None, "reasoning_effort": "low"})
        engine.generate([conversation(engine)], max_new_tokens=7)
    (body,) = server.bodies
    assert body["max_tokens"] == 7
    assert body["reasoning_effort"] == "low"
    assert not {"temperature", "max_completion_tokens"} & set(body)


def test_a_stop_string_is_sent_and_put_back_where_the_server_names_it(connect: Connect) -> None:
    named = reply("one")
    named["choices"][0]["stop_reason"] = "\n"
    by_token = reply("two")
    by_token["choices"][0]["stop_reason"] = 128001
    with FakeServer(answers=[named, by_token, "three"]) as server:
        engine = connect(server, max_in_flight=1)
        written = engine.generate([conversation(engine)] * 3, max_new_tokens=7, stop=["\n", "END"])
    assert server.bodies[0]["stop"] == ["\n", "END"]
    assert [generation.text for generation in written] == ["one\n", "two", "three"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_that_comes_apart_stands_before_the_answer(connect: Connect, field: str) -> None:
    with FakeServer(answers=[reply("[2] > [1]", tokens=40, **{field: "two is it"})]) as server:
        engine = connect(server)
        (written,) = engine.generate([conversation(engine)], max_new_tokens=50)
    assert written == Generation("<think>two is it</think>[2] > [1]", tokens=40, complete=True)


def test_an_answer_that_the_budget_ended_is_not_complete(connect: Connect) -> None:
    answers = [
        reply("[2] >", finish="length"),
        reply(None, finish="length", reasoning="it may"),
        reply("x", finish="eos"),
    ]
    with FakeServer(answers=answers) as server:
        engine = connect(server, max_in_flight=1)
        written = engine.generate([conversation(engine)] * 3, max_new_tokens=3)
    assert written == [
        Generation("[2] >", tokens=3, complete=False),
        Generation("<think>it may", tokens=3, complete=False),
        Generation("x", tokens=3, complete=True),
    ]


def test_tokens_are_counted_here_where_the_server_does_not(connect: Connect) -> None:
    with FakeServer(answers=[reply("[2] > [1]", tokens=None)]) as server:
        engine = connect(server)
        (written,) = engine.generate([conversation(engine)], max_new_tokens=3)
    assert written.tokens == len(engine.encode("[2] > [1]")) == 9


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "has no choices with a message; is this a chat server"),
        ({"choices": []}, "has no choices"),
        ({"choices": None, "error": {"message": f"no credit for {KEY}"}}, r"the error .*no credit for \*\*\*"),
        ({"choices": [{"text": "A"}]}, "has no choices"),
        ({"choices": [{"message": None}]}, "has no choices"),
        (reply(None, refusal="I cannot rank that."), r"hosted refused to answer: 'I cannot rank that\.'"),
        (reply(None, refusal=f"No: {KEY}."), r"refused to answer: 'No: \*\*\*\.'"),
        (reply("[2", finish="content_filter"), "was stopped by a content filter"),
        (reply(None), r"empty answer \(finish_reason 'stop'\); ask again"),
        (reply(" \n", finish=None), "empty answer"),
        (reply("", finish="length"), "raise max_new_tokens, 7 left nothing after hidden reasoning"),
        (reply([{"type": "text", "text": "A"}]), "the content of the reply is list instead of text"),
        (reply("A", reasoning={"text": "B"}), "the reasoning of the reply is dict instead of text"),
    ],
)
def test_a_reply_without_an_answer_says_so(connect: Connect, answer: Json, message: str) -> None:
    with FakeServer(faults=[Body(json.dumps(answer))]) as server:
        engine = connect(server, api_key=KEY)
        with pytest.raises(WorkerError, match=message) as caught:
            engine.generate([conversation(engine)], max_new_tokens=7)
    assert KEY not in str(caught.value)
    assert "hosted" in str(caught.value)


def test_a_password_in_the_url_is_in_no_message() -> None:
    with FakeServer(faults=[Body(json.dumps({"error": "bad login me:pass-word"}))]) as server:
        url = server.url.replace("//", "//me:pass-word@")
        with ChatEngine(url, model="m") as engine, pytest.raises(WorkerError, match=r"bad login me:\*\*\*") as caught:
            engine.generate([conversation(engine)], max_new_tokens=7)
    assert "pass-word" not in str(caught.value)


def test_a_refused_key_is_an_error_and_a_busy_server_is_asked_again(connect: Connect) -> None:
    with FakeServer(faults=[Status(401), Status(503)], answers=["hi"]) as server:
        engine = connect(server)
        with pytest.raises(WorkerError, match="status 401"):
            engine.generate([conversation(engine)], max_new_tokens=7)
        assert engine.generate([conversation(engine)], max_new_tokens=7)[0].text == "hi"


def test_what_is_no_conversation_or_too_long_is_refused_before_a_request(connect: Connect) -> None:
    with FakeServer(answers=["hi"]) as server:
        engine = connect(server, context_tokens=20)
        whole = conversation(engine)
        for prompt in ([], engine.encode("hello"), whole + whole, whole[1:]):
            with pytest.raises(InvalidInputError, match="is no conversation; begin it with what chat_text"):
                engine.generate([prompt], max_new_tokens=1)
        with pytest.raises(InvalidInputError, match=f"prompt 1 has {len(whole) + 1} tokens and may write 14"):
            engine.generate([whole, [*whole, *engine.encode("[")]], max_new_tokens=20 - len(whole))
        assert server.received == []
        assert len(engine.generate([whole], max_new_tokens=20 - len(whole))) == 1
    with pytest.raises(ConfigError, match="max_in_flight is 0"):
        ChatEngine("http://host/v1", model="m", max_in_flight=0)


def echo(body: Json) -> str:
    return str(body["messages"][-1]["content"])


def test_prompts_go_out_together_and_answers_come_back_in_order(connect: Connect) -> None:
    # Each request waits until as many as may be in flight have come, so that one fewer would never be answered.
    with FakeServer(answers=echo, meeting=threading.Barrier(4)) as server:
        engine = connect(server, max_in_flight=4)
        written = engine.generate([conversation(engine, f"number {i}") for i in range(20)], max_new_tokens=7)
        assert engine.generate([], max_new_tokens=7) == []
    assert [generation.text for generation in written] == [f"number {i}" for i in range(20)]


def test_the_bound_on_requests_holds_over_all_callers(connect: Connect) -> None:
    now, most, lock = [0], [0], threading.Lock()
    met = threading.Barrier(2)

    def count(body: Json) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        met.wait(timeout=30)
        with lock:
            now[0] -= 1
        return echo(body)

    with FakeServer(answers=count) as server:
        engine = connect(server, max_in_flight=2)
        prompts = [conversation(engine, f"number {i}") for i in range(4)]
        callers = [
            threading.Thread(target=engine.generate, args=(prompts,), kwargs={"max_new_tokens": 7}) for _ in "abc"
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(server.received) == 12
    assert most == [2]


def test_it_works_under_a_running_event_loop(connect: Connect) -> None:
    async def ask(engine: ChatEngine) -> list[Generation]:
        (directly,) = engine.generate([conversation(engine, "here")], max_new_tokens=7)
        (in_thread,) = await asyncio.to_thread(engine.generate, [conversation(engine, "there")], max_new_tokens=7)
        return [directly, in_thread]

    with FakeServer(answers=echo) as server:
        written = asyncio.run(ask(connect(server)))
    assert [generation.text for generation in written] == ["here", "there"]


WORTH = [3, 9, 1, 7, 0, 8, 2, 6, 5, 4]


@pytest.mark.parametrize("prefill", [False, True])
def test_a_ranker_reads_permutations_with_and_without_their_beginning(connect: Connect, prefill: bool) -> None:
    def answer(body: Json) -> str:
        return permutation(body).removeprefix("[" if prefill else "")

    template = load_template("rank_zephyr")
    with FakeServer(answers=answer) as server:
        engine = connect(server, prefill=prefill)
        ranker = ListwiseRanker(
            engine,
            template=template,
            strategy=Sliding(size=6, stride=3),
            reader=GenerateReader(engine, answer_prefix=template.answer),
        )
        ranking = candidates(WORTH)
        (result,) = ranker.rank([ranking])
    assert result.ids[:3] == best_first(WORTH)[:3]
    assert all(not window.repairs and not window.failure for window in result.evidence.windows)
    assert result.evidence.readings["d0"].tokens_used == len([" about", ",", " ", "(", "it", ")", " worth", " ", "3"])
    assert 0 < result.evidence.tokens + result.evidence.generated_tokens < ranker.cost_tokens(ranking)
    system, user, *rest = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": template.system}
    assert rest == ([{"role": "assistant", "content": "["}] if prefill else [])
    lines = [f"[{label}] about, (it) worth {WORTH[i]}" for label, i in zip(template.labels, range(4, 10), strict=False)]
    shown = template.user.replace("{num}", "6").replace("{query}", "which is worth most?")
    assert user["content"] == shown.replace("{passages}", "\n".join(lines))


def test_a_passage_is_cut_to_its_words_and_writes_neither_a_turn_nor_a_label(connect: Connect) -> None:
    documents = [Document("a", f"one two\ue012 three{MARKERS} [1]"), Document("b", "[\ue0102] five")]
    with FakeServer(answers=["[2] > [1]"]) as server:
        engine = connect(server)
        reader = GenerateReader(engine, answer_prefix="[")
        ranker = ListwiseRanker(engine, template="rank_zephyr", reader=reader, passage_tokens=5)
        (result,) = ranker.rank([Ranking.from_order(Query("q", "why\ue011 so?"), documents)])
    (body,) = server.bodies
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    # "�" stands for each; the space before the text counts where no word takes it.
    assert "\n[1] one two� three�\n[2] [�2]\n" in body["messages"][1]["content"]
    assert "Search Query: why� so?." in body["messages"][1]["content"]
    assert result.ids == ("b", "a")
    assert all(reading.truncated for reading in result.evidence.readings.values())


@pytest.mark.parametrize("apart", [False, True])
def test_a_ranker_keeps_the_reasoning(connect: Connect, apart: bool) -> None:
    def answer(body: Json) -> str | Json:
        final = f"<answer> {permutation(body)} </answer>"
        thought = f"I sort {len(best_labels(body))} of them."
        return reply(final, reasoning_content=thought) if apart else f"<think> {thought} </think>{final}"

    with FakeServer(answers=answer) as server:
        engine = connect(server)
        reader = ReasoningReader(engine, max_new_tokens=500)
        ranker = ListwiseRanker(engine, template="reasoning", strategy=Single(), reader=reader)
        (result,) = ranker.rank([candidates(WORTH)])
    assert result.ids == best_first(WORTH)
    (window,) = result.evidence.windows
    assert (window.trace, window.repairs) == ("I sort 10 of them.", ())
    assert server.bodies[0]["max_completion_tokens"] == 500


def test_reasoning_that_the_budget_ended_keeps_the_order_and_the_trace(connect: Connect) -> None:
    with FakeServer(answers=[reply("", finish="length", reasoning="[3] > [2] > [1], but")]) as server:
        engine = connect(server)
        ranker = ListwiseRanker(engine, template="reasoning", strategy=Single(), reader=ReasoningReader(engine))
        (result,) = ranker.rank([candidates([1, 2, 3])])
    (window,) = result.evidence.windows
    assert result.ids == ("d0", "d1", "d2")
    assert window.trace == "[3] > [2] > [1], but"
    assert {Repair.UNCLOSED_TAG, Repair.CUT_OFF} <= set(window.repairs)


def test_a_ranker_orders_by_grades(connect: Connect) -> None:
    def answer(body: Json) -> str:
        return "\n".join(f"[{label}] {worth}" for label, worth in sorted(best_labels(body)))

    with FakeServer(answers=answer) as server:
        engine = connect(server)
        ranker = ListwiseRanker(engine, template="group_grades", strategy=Single(), reader=GradesReader(engine))
        (result,) = ranker.rank([candidates(WORTH)])
    assert result.ids == best_first(WORTH)
    assert result.evidence.windows[0].repairs == ()


def test_a_window_that_is_refused_keeps_its_order_and_says_why(connect: Connect) -> None:
    def answer(body: Json) -> str | Json:
        shown = [worth for _, worth in best_labels(body)]
        return reply(None, refusal="not this one") if 0 in shown else permutation(body)

    with FakeServer(answers=answer) as server:
        engine = connect(server)
        reader = GenerateReader(engine, answer_prefix="[")
        ranker = ListwiseRanker(engine, template="rank_zephyr", strategy=Sliding(size=4, stride=3), reader=reader)
        (result,) = ranker.rank([candidates([5, 6, 7, 8, 0, 1, 2])])
    first, second = result.evidence.windows
    assert "hosted refused to answer: 'not this one'" in first.failure
    assert not second.failure
    assert result.ids == ("d3", "d2", "d1", "d0", "d4", "d5", "d6")


def grades(body: Json) -> str:
    return "\n".join(f"[{label}] {worth}" for label, worth in sorted(best_labels(body)))


GROUPS = [[1, 2, 3], [4, 5, 6], [0, 8, 9], [7, 10, 11], [12, 13]]
"""What the documents of five windows are worth, the last one of another size; 0 is what the server refuses."""
GRADED = [worth for group in GROUPS for worth in group]


def grade_groups(engine: ChatEngine) -> Ranking:
    reader = GradesReader(engine, top_grade=20)
    ranker = ListwiseRanker(engine, template="group_grades", strategy=Groupwise(size=3), reader=reader)
    return ranker.rank([candidates(GRADED)])[0]


@pytest.mark.parametrize("max_in_flight", [1, 2, 8])
@pytest.mark.parametrize("times", [1, 2])
def test_one_refusal_costs_one_request(connect: Connect, times: int, max_in_flight: int) -> None:
    refused: list[Json] = []

    def answer(body: Json) -> str | Json:
        if 0 in dict(best_labels(body)).values() and len(refused) < times:
            refused.append(body)
            return reply(None, refusal="not this one")
        return grades(body)

    with FakeServer(answers=answer) as server:
        result = grade_groups(connect(server, max_in_flight=max_in_flight))
    assert len(server.received) == 5 + 1
    failures = [window.failure for window in result.evidence.windows]
    assert [bool(failure) for failure in failures] == [False, False, times == 2, False, False]
    assert ("not this one" in failures[2]) == (times == 2)
    if times == 1:
        assert result.ids == best_first(GRADED)
    else:
        assert result.ids[6:9] == ("d6", "d7", "d8")


def test_windows_that_failed_are_asked_again_together(connect: Connect) -> None:
    seen: set[str] = set()
    both = threading.Barrier(2)

    def answer(body: Json) -> str | Json:
        if not {2, 7} & set(dict(best_labels(body)).values()):
            return grades(body)
        if echo(body) not in seen:
            seen.add(echo(body))
            return reply(None, refusal="not now")
        # The first window and the fourth are only answered beside each other.
        both.wait(timeout=30)
        return grades(body)

    with FakeServer(answers=answer) as server:
        result = grade_groups(connect(server))
    assert not any(window.failure for window in result.evidence.windows)
    assert len(seen) == 2
    assert len(server.received) == 5 + 2


def test_a_server_that_refuses_everything_is_asked_twice(connect: Connect) -> None:
    with FakeServer() as server, pytest.raises(WorkerError, match=r"none of 5 windows could be read: .*status 400"):
        grade_groups(connect(server, max_in_flight=2))
    assert len(server.received) == 10


@pytest.mark.parametrize("reader", [GenerateReader, ReasoningReader, GradesReader])
def test_every_reader_says_which_window_it_could_not_read(
    connect: Connect, reader: type[GenerateReader | ReasoningReader | GradesReader]
) -> None:
    with FakeServer(answers=lambda body: reply(None, refusal="no") if echo(body) == "1" else "[B] 2 > [A] 1") as server:
        engine = connect(server)
        prompts = [conversation(engine, str(i)) for i in range(3)]
        outcomes = reader(engine).read(prompts, [(0, 1), (2, 3), (4, 5)], labels=LabelSet(("A", "B")))
    assert [outcome.order for outcome in outcomes] == [(1, 0), (2, 3), (5, 4)]
    assert [outcome.failure for outcome in outcomes] == ["", outcomes[1].failure, ""]
    assert "refused to answer: 'no'" in outcomes[1].failure


def test_an_error_has_the_answers_that_came(connect: Connect) -> None:
    with FakeServer(answers=lambda body: reply(None, refusal="no") if echo(body) == "1" else echo(body)) as server:
        engine = connect(server)
        with pytest.raises(PartialFailureError, match="refused to answer: 'no'") as caught:
            engine.generate([conversation(engine, str(i)) for i in range(3)], max_new_tokens=7)
    found = dict(caught.value.results)
    assert found.pop(0) == Generation("0", 1, complete=True)
    assert found in ({}, {2: Generation("2", 1, complete=True)})  # the last may have been cancelled before it was sent
    assert list(caught.value.errors) == [1]

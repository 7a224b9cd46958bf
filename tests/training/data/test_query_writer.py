"""What a model is shown, and what is taken for a query."""

from pathlib import Path

import pytest

from rankers.errors import ConfigError, InvalidInputError, WorkerError
from rankers.llm.chat_engine import ChatEngine
from rankers.llm_templates import load_prompt_template
from rankers.types import Document
from tests.rankers.llm.fake_server import FakeServer, Json
from tests.rankers.models import tiny_engine
from training.data.query_writer import CHAT, COMPLETION, EXAMPLES, QueryWriter, clean_query, read_examples

DOCUMENT = Document("a", "Wild  yeasts\nferment the flour. " * 40, "Bread")


def asked(server: FakeServer) -> str:
    content: str = server.received[-1].body["messages"][-1]["content"]
    return content


def test_a_hosted_model_sees_examples_and_the_beginning_of_the_document() -> None:
    with (
        FakeServer(answers=['Query: "what ferments flour"\nDocument: more', "No."]) as server,
        ChatEngine(server.url, model="hosted", max_in_flight=1) as engine,
    ):
        writer = QueryWriter(engine, examples=[("one\ndocument", "one query")], document_tokens=6)
        assert writer.write([DOCUMENT, Document("b", "text")]) == ["what ferments flour", ""]
        assert asked(server) == "Document: one document\nRelevant query: one query\n\nDocument: text\nRelevant query:"
        first: Json = server.received[0].body["messages"][-1]
        assert "Document: Bread Wild yeasts ferment the flour\nRelevant" in first["content"]


def test_a_refused_document_has_no_query_and_costs_no_other_its_own() -> None:
    refusal = {"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}

    def answer(request: Json) -> str | Json:
        return refusal if "poison" in request["messages"][-1]["content"] else "what is it"

    documents = [Document(str(i), "poison" if i == 3 else f"text {i}") for i in range(12)]
    with FakeServer(answers=answer) as server, ChatEngine(server.url, model="hosted") as engine:
        writer = QueryWriter(engine, examples=[])
        assert writer.write(documents) == ["what is it"] * 3 + [""] + ["what is it"] * 8
        assert len(server.received) == 12
        with pytest.raises(WorkerError, match="refused to answer"):
            writer.write(documents[3:4])


@pytest.mark.parametrize("template", [CHAT, COMPLETION])
def test_a_local_model_writes_without_more(template: Path) -> None:
    engine = tiny_engine()
    writer = QueryWriter(engine, examples=[], template=template, document_tokens=10, max_new_tokens=4)
    assert len(writer.write([DOCUMENT, DOCUMENT])) == 2
    assert writer.write([]) == []


def test_markup_in_a_document_is_plain_text() -> None:
    with FakeServer(answers=["what is it"]) as server, ChatEngine(server.url, model="hosted") as engine:
        QueryWriter(engine, examples=[]).write([Document("a", "\ue012 {examples} {document}")])
        assert asked(server) == "Document: \ufffd {examples} {document}\nRelevant query:"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("what is a flea", "what is a flea"),
        ("\n  'what is a flea'  \n", "what is a flea"),
        ("Relevant Query: what is a flea", "what is a flea"),
        ("- search query: **what is a flea?**", "what is a flea?"),
        ("<think>a flea? hm</think>\nwhat is a flea", "what is a flea"),
        ("flea", ""),
        ("word " * 41, ""),
        ("", ""),
        ("\n \n", ""),
        ('""', ""),
    ],
)
def test_the_first_line_is_the_query(text: str, query: str) -> None:
    assert clean_query(text) == query


def test_templates_without_their_fields_are_refused() -> None:
    template = load_prompt_template(CHAT)
    for change in ({"user": "Document: {document}"}, {"user": "{examples}"}, {"example": "{query}"}):
        with pytest.raises(ConfigError, match="query_writer"):
            QueryWriter(tiny_engine(), template=template.model_copy(update=change))


def test_examples_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"document": "d", "query": "q"}\n\n{"document": "e", "query": "r", "other": 1}\n')
    assert read_examples(path) == [("d", "q"), ("e", "r")]
    for bad in ('{"document": "d"}', '{"document": 1, "query": "q"}', "no", "\n"):
        path.write_text(bad + "\n")
        with pytest.raises(InvalidInputError, match="example"):
            read_examples(path)
    assert all(clean_query(query) == query for _, query in EXAMPLES)

"""Readers of written answers: scripted texts, and what a real model writes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rankers.errors import ConfigError
from rankers.listwise.labels import LETTERS, LabelSet
from rankers.listwise.permutation import Repair
from rankers.listwise.prompt import PromptBuilder
from rankers.listwise.ranker import ListwiseRanker
from rankers.listwise.readers.generate import GenerateReader
from rankers.listwise.readers.grades import GradesReader, parse_grades
from rankers.listwise.readers.reasoning import ReasoningReader, split_reasoning
from rankers.listwise.readers.setwise import SetwiseReader
from rankers.listwise.strategies.single import Single
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.template import load_template
from rankers.listwise.windows import Reader, Window, WindowOutcome
from rankers.llm.transformers_engine import TransformersEngine
from rankers.protocols import Generation, TokenIds
from rankers.types import Document, Ranking
from tests.rankers.build import QUERY
from tests.rankers.listwise.oracle import OracleModel

LABELS = LabelSet(LETTERS)


class Scribe:
    """Writes what its prompt says, character for token, as far as the budget goes; keeps the budgets."""

    context_tokens = None

    def __init__(self) -> None:
        self.budgets: list[int] = []

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:
        return self.encode(text)

    def chat_text(self, system: str, user: str) -> str:
        return f"{system}\n{user}\n"

    def generate(
        self, prompts: Sequence[TokenIds], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[Generation]:
        assert not stop, "answers may begin with a line break, so nothing but their end is a stop"
        self.budgets.append(max_new_tokens)
        texts = ["".join(map(chr, prompt)) for prompt in prompts]
        return [
            Generation(text[:max_new_tokens], min(len(text), max_new_tokens), len(text) <= max_new_tokens)
            for text in texts
        ]


def read(reader: Reader, *answers: str, windows: Sequence[Window] | None = None) -> list[WindowOutcome]:
    """Read windows of three, candidates 7, 8 and 9, or those given; each prompt is the answer to it."""
    shown = windows or [(7, 8, 9)] * len(answers)
    return reader.read([[ord(c) for c in answer] for answer in answers], shown, labels=LABELS)


def test_setwise_reads_what_the_first_token_says_but_finds_out_only_the_best() -> None:
    model = OracleModel()
    prompts = [model.encode("[A] worth 1\n[B] worth 3\n[C] worth 2\n")]
    labels = LabelSet(LETTERS, tuple(map(ord, LETTERS)))
    (outcome,) = SetwiseReader(model).read(prompts, [(7, 8, 9)], labels=labels)
    assert outcome == WindowOutcome((8, 9, 7), logits=(1.0, 3.0, 2.0))
    message = (
        "Sliding needs the order of every window, SetwiseReader gives only the best, logits; "
        "choose another reader or another strategy"
    )
    with pytest.raises(ConfigError, match=message):
        ListwiseRanker(OracleModel(), template="setwise", reader=SetwiseReader(model), strategy=Sliding())


def test_a_written_permutation_is_the_order_of_the_window() -> None:
    good, none = read(GenerateReader(Scribe()), "\n[C] > [A] > [B]", "3 passages are provided.")
    assert good == WindowOutcome((9, 7, 8), generated_tokens=16)
    assert none == WindowOutcome((7, 8, 9), repairs=(Repair.NO_ANSWER,), generated_tokens=24)


@pytest.mark.parametrize("written", ["C] > [A] > [B]", "[C] > [A] > [B]", "\n[C] > [A] > [B]"])
def test_the_bracket_that_the_prompt_ends_in_belongs_to_the_answer(written: str) -> None:
    (outcome,) = read(GenerateReader(Scribe(), answer_prefix="["), written)
    assert (outcome.order, outcome.repairs) == ((9, 7, 8), ())
    (bare,) = read(GenerateReader(Scribe()), written)
    assert (bare.order, bare.repairs) == ((9, 7, 8), () if "[C]" in written else (Repair.FORM,))


@given(st.data(), st.lists(st.integers(2, 8), min_size=1, max_size=6))
def test_a_batch_of_windows_gives_what_each_gives_alone(data: st.DataObject, sizes: list[int]) -> None:
    windows = [tuple(range(10 * i, 10 * i + size)) for i, size in enumerate(sizes)]
    shuffled = [data.draw(st.permutations(range(size))) for size in sizes]
    rambling = [" > ".join(f"[{LETTERS[place]}]" for place in order) + " > [A] or so" * 9 for order in shuffled]
    readers: list[Reader] = [GenerateReader(Scribe()), GenerateReader(Scribe(), max_new_tokens=9)]
    for reader in readers:
        together = read(reader, *rambling, windows=windows)
        assert together == [
            read(reader, text, windows=[window])[0] for text, window in zip(rambling, windows, strict=True)
        ]
    whole = read(readers[0], *rambling, windows=windows)
    assert [outcome.order for outcome in whole] == [
        tuple(window[place] for place in order) for window, order in zip(windows, shuffled, strict=True)
    ]


def test_the_budget_is_a_quarter_over_the_answer_and_8_unless_it_is_given() -> None:
    scribe = Scribe()
    read(GenerateReader(scribe), "", "", "", windows=[(0, 1), (2, 3, 4), (5, 6)])
    # "[A] > [B]" has 9 characters, "[A] > [B] > [C]" 15; windows of one size are written together.
    assert scribe.budgets == [9 * 5 // 4 + 8, 15 * 5 // 4 + 8]
    read(GenerateReader(scribe, max_new_tokens=5), "", "", windows=[(0, 1), (2, 3, 4)])
    read(ReasoningReader(scribe), "", "", windows=[(0, 1), (2, 3, 4)])
    assert scribe.budgets[2:] == [5, 2048]
    read(GradesReader(scribe, top_grade=100), "")
    assert scribe.budgets[4:] == [len("[A] 100\n[B] 100\n[C] 100") * 5 // 4 + 8]


def test_an_answer_that_the_budget_ended_says_so_if_it_lacks_something() -> None:
    short, whole = read(GenerateReader(Scribe(), max_new_tokens=15), "[C] > or maybe > [A]", "[C] > [A] > [B] > [C]")
    assert (short.order, short.repairs) == ((9, 7, 8), (Repair.EXTRA_TEXT, Repair.MISSING, Repair.CUT_OFF))
    assert (whole.order, whole.repairs, whole.generated_tokens) == ((9, 7, 8), (), 15)


OPEN, TAGLESS, NONE = Repair.UNCLOSED_TAG, Repair.NO_ANSWER_TAG, Repair.NO_ANSWER


@pytest.mark.parametrize(
    ("text", "order", "repairs", "trace"),
    [
        ("<think>B says it.</think><answer>[B] > [A] > [C]</answer>", "BAC", (), "B says it."),
        ("\n<think>\nB says it.\n</think>\n\n<answer>\n[B] > [A] > [C]\n</answer>\n", "BAC", (), "B says it."),
        ("<THINK>B</THINK> So: <Answer>[B] > [A] > [C]</Answer> Done.", "BAC", (), "B"),
        # The prompt may have ended in the tag.
        ("B says it.</think><answer>[B] > [A] > [C]</answer>", "BAC", (), "B says it."),
        # Tags and labels named in the reasoning are no answer.
        ("<think>I write <answer>[C]</answer>, or [A].</think><answer>[B] > [A] > [C]</answer>", "BAC", (), ...),
        # Tags that are left open or out.
        ("<think>B</think><answer>[B] > [A] > [C]", "BAC", (OPEN,), "B"),
        ("<think>B</think>[B] > [A] > [C]", "BAC", (TAGLESS,), "B"),
        ("<think>B<answer>[B] > [A] > [C]</answer>", "BAC", (OPEN,), "B"),
        ("<think>[C] is bad, [A] is not.\n[B] > [A] > [C]", "BAC", (OPEN, TAGLESS), ...),
        ("[B] > [A] > [C]", "BAC", (TAGLESS,), ""),
        ("B is it. <answer>[B] > [A] > [C]</answer>", "BAC", (), "B is it."),
        # What the answer lacks is named as it is elsewhere; one label is what Rank-R1 answers.
        ("<think>B</think><answer>[B]</answer>", "BAC", (Repair.MISSING,), "B"),
        ("<think>B</think><answer>none</answer>", "ABC", (NONE,), "B"),
        ("", "ABC", (TAGLESS, NONE), ""),
    ],
)
def test_reasoning_and_answer(text: str, order: str, repairs: tuple[Repair, ...], trace: object) -> None:
    (outcome,) = read(ReasoningReader(Scribe()), text)
    assert ("".join("ABC"[candidate - 7] for candidate in outcome.order), outcome.repairs) == (order, repairs)
    assert trace is ... or outcome.trace == trace
    assert outcome.generated_tokens == len(text)


@pytest.mark.parametrize("opening", ["<think>", "", "<think>I shall write <answer> "])
def test_reasoning_that_the_budget_ended_has_no_answer_however_many_labels_it_names(opening: str) -> None:
    (outcome,) = read(ReasoningReader(Scribe(), max_new_tokens=45), f"{opening}[C] > [B] > [A]? Let me see" + "." * 50)
    assert outcome.order == (7, 8, 9)
    assert outcome.repairs == (Repair.UNCLOSED_TAG, Repair.NO_ANSWER, Repair.CUT_OFF)
    assert "[C] > [B]" in outcome.trace


def test_an_answer_that_the_budget_ended_is_read_as_far_as_it_goes() -> None:
    (outcome,) = read(ReasoningReader(Scribe(), max_new_tokens=34), "<think>C</think><answer>[C] > [B] > [A]</answer>")
    assert (outcome.order, outcome.trace, outcome.generated_tokens) == ((9, 8, 7), "C", 34)
    assert outcome.repairs == (Repair.UNCLOSED_TAG, Repair.MISSING, Repair.CUT_OFF)


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
def test_any_text_has_some_reasoning_and_answer(before: str, after: str, complete: bool) -> None:
    for tag in ("", "<think>", "</think>", "<answer>", "</answer>"):
        found = split_reasoning(Generation(before + tag + after, 1, complete))
        assert found.trace in before + tag + after
        assert found.answer in before + tag + after


def test_thinking_aloud_unasked_is_no_part_of_an_answer() -> None:
    draft, open_ended = "<think>[A] > [C] > [B]?</think>[C] > [B] > [A]", "<think>is it [C] > [B] or"
    found = read(GenerateReader(Scribe(), answer_prefix="[", max_new_tokens=99), draft, open_ended)
    assert [outcome.order for outcome in found] == [(9, 8, 7), (7, 8, 9)]
    assert Repair.NO_ANSWER in found[1].repairs
    graded = "<think>[A] 3 at first, [B] 1</think>[A] 1\n[B] 9\n[C] 5"
    assert read(GradesReader(Scribe(), max_new_tokens=99), graded)[0].grades == (0.1, 0.9, 0.5)


def test_grades_are_scaled_and_order_the_window() -> None:
    (outcome,) = read(GradesReader(Scribe()), "[A] 3\n[B] 9\n[C] 3")
    assert outcome == WindowOutcome((8, 7, 9), grades=(0.3, 0.9, 0.3), generated_tokens=17)
    (none,) = read(GradesReader(Scribe()), "I cannot grade these.")
    assert none == WindowOutcome((7, 8, 9), repairs=(Repair.NO_ANSWER,), generated_tokens=21)
    (short,) = read(GradesReader(Scribe(), max_new_tokens=11), "[A] 3\n[B] 9\n[C] 10")
    assert (short.order, short.grades) == ((8, 7, 9), (0.3, 0.9, 0.3))
    assert short.repairs == (Repair.MISSING, Repair.CUT_OFF)


MISSING, UNKNOWN, DUPLICATE = Repair.MISSING, Repair.UNKNOWN, Repair.DUPLICATE


@pytest.mark.parametrize(
    ("text", "values", "repairs"),
    [
        ("[A] 7\n[B] 10\n[C] 0", (0.7, 1.0, 0.0), ()),
        ("[A]: 7\n[B] = 10/10\n[C] - 2.5", (0.7, 1.0, 0.25), ()),
        ("[A]-7, [B] -> 10, [C] (2.5)", (0.7, 1.0, 0.25), ()),
        ("**[A]** Relevance: 4/5\n**[B]** 5 out of 5\n**[C]** answers it: 3/5", (0.8, 1.0, 0.6), ()),
        ("A: 7\nB: 10\nC: 2.5", (0.7, 1.0, 0.25), ()),
        ("Passage A: 7, Passage B: 10, Passage C: 2.5", (0.7, 1.0, 0.25), ()),
        ("A 7\nB. 10\n- C - 2.5", (0.7, 1.0, 0.25), ()),
        ('```json\n{"A": 7, "B": 10, "C": 2.5}\n```', (0.7, 1.0, 0.25), ()),
        ('[{"label": "B", "score": 10}, {"label": "A", "score": 7}, {"label": "C", "score": 2.5}]', (0.7, 1, 0.25), ()),
        ("[A] 7/0\n[B] 10\n[C] 0", (0.7, 1.0, 0.0), ()),
        # What had to be mended.
        ("[C] 4\n[B] 9", (0.4, 0.9, 0.4), (MISSING,)),
        ("[A] 7\n[B] 99\n[C] -3", (0.7, 1.0, 0.0), (Repair.OUT_OF_RANGE,)),
        ("[A] 7\n[B] 9\n[A] 1\n[C] 2\n[D] 5", (0.7, 0.9, 0.2), (DUPLICATE, UNKNOWN)),
        ("[B] > [A] > [C]", (), (NONE,)),
        ("[A] Fleas live for 3 months.\n[B] In 1987\n[C] it was so: at 9 in the morning", (), (NONE,)),
        ("3 passages are provided: A good one has 7 words.", (), (NONE,)),
        ("", (), (NONE,)),
    ],
)
def test_forms_of_grades(text: str, values: tuple[float, ...], repairs: tuple[Repair, ...]) -> None:
    found = parse_grades(text, ("A", "B", "C"), top_grade=10)
    assert found.values == pytest.approx(values)
    assert found.repairs == repairs


def test_grades_of_numbered_passages() -> None:
    assert parse_grades("1: 7\n2: 10", ("1", "2"), top_grade=10).values == (0.7, 1.0)
    assert parse_grades("[2] 10\n[1] 7", ("1", "2"), top_grade=10).values == (0.7, 1.0)
    assert parse_grades("1. 7\n2. 10", ("1", "2"), top_grade=20).values == (0.35, 0.5)


@given(
    st.lists(st.sampled_from(["[A]", "B", ": ", "=", " ", "-", "7", "1e9", "/", "0", ".", "\n", '"', ","]), max_size=25)
)
def test_any_text_gives_grades_in_the_unit_interval_or_none(parts: list[str]) -> None:
    values = parse_grades("".join(parts), ("A", "B"), top_grade=10).values
    assert len(values) in {0, 2}
    assert all(0 <= value <= 1 for value in values)


def test_an_empty_budget_or_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        GenerateReader(Scribe(), max_new_tokens=0)
    with pytest.raises(ConfigError, match="max_new_tokens is -1"):
        ReasoningReader(Scribe(), max_new_tokens=-1)
    with pytest.raises(ConfigError, match="top_grade is 0"):
        GradesReader(Scribe(), top_grade=0)


@pytest.mark.parametrize("name", ["rank_zephyr", "setwise", "reasoning", "insert_rank", "group_grades"])
def test_packaged_templates_fit_a_real_model(name: str, smollm2: str, smollm2_engine: TransformersEngine) -> None:
    template = load_template(name)
    assert template.name == name
    prompts = PromptBuilder(template, smollm2_engine, passage_tokens=30)
    prompts.labels.require(20)
    passages = [prompts.encode_passage(text) for text in ("Water boils.", "Ice melts.")]
    ids = prompts.render(prompts.encode_query("when?"), passages, (12.5, 0.25) if template.shows_scores else ())
    first, second = template.labels[:2]
    scores = (" (search score: 12.5)", " (search score: 0.25)") if name == "insert_rank" else ("", "")
    text = str(AutoTokenizer.from_pretrained(smollm2).decode(ids))
    assert f"\n[{first}] Water boils.{scores[0]}\n[{second}] Ice melts.{scores[1]}\n" in text
    assert text.count("when?") == 2
    assert text.endswith("assistant\n" + template.answer)


def test_a_real_model_writes_and_what_it_writes_is_read(smollm2_engine: TransformersEngine) -> None:
    texts = ["Paris is the capital of France.", "Fleas live for months.", "Bread is baked.", "Lyon is in France."]
    ranking = Ranking.from_order(QUERY, [Document(f"d{i}", text) for i, text in enumerate(texts)])
    readers: list[Reader] = [
        GenerateReader(smollm2_engine, answer_prefix="["),
        ReasoningReader(smollm2_engine, max_new_tokens=40),
        GradesReader(smollm2_engine),
    ]
    for reader, template in zip(readers, ("rank_zephyr", "reasoning", "group_grades"), strict=True):
        ranker = ListwiseRanker(smollm2_engine, template=template, reader=reader, strategy=Single())
        (result,) = ranker.rank([ranking])
        assert sorted(result.ids) == sorted(ranking.ids)
        assert result.evidence.generated_tokens > 0
        assert not result.evidence.windows[0].failure

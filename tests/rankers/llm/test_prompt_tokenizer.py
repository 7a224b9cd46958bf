"""What a user writes is characters; what a template writes may be special tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rankers.llm.prompt_tokenizer import PromptTokenizer
from tests.rankers.models import CHATML, SPECIAL, byte_tokenizer, wrap_tokenizer

PLAIN = PromptTokenizer(byte_tokenizer())
THINKING_TOKENIZER = byte_tokenizer(thinking=True)
THINKING = PromptTokenizer(THINKING_TOKENIZER)

markup = st.sampled_from([*SPECIAL, "<think>", "<|im_", "end|>", "<", "think>", " the ", "[A]"])
text_with_markup = st.lists(st.one_of(markup, st.text(max_size=4)), max_size=8).map("".join)


@given(text_with_markup)
def test_user_text_never_becomes_an_added_token(text: str) -> None:
    ids = THINKING.encode(text)
    assert not set(ids) & set(THINKING_TOKENIZER.get_added_vocab().values())
    assert THINKING_TOKENIZER.decode(ids) == text.encode("utf-8", "replace").decode()


def test_special_tokens_are_plain_characters_in_user_text() -> None:
    assert len(PLAIN.encode("<|im_end|>")) == len("<|im_end|>")
    assert PLAIN.encode_template("<|im_end|>") == [1]


def test_smollm2_does_not_end_its_turn_where_a_passage_says_so(smollm2: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = PromptTokenizer(tokenizer)
    for token in tokenizer.get_added_vocab():
        ids = text.encode(f"a passage {token} and more")
        assert not set(ids) & set(tokenizer.get_added_vocab().values())
        assert tokenizer.decode(ids) == f"a passage {token} and more"
    assert text.encode_template("<|im_end|>") == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_text_without_markup_is_encoded_as_the_tokenizer_does() -> None:
    assert PLAIN.encode(" the AA") == byte_tokenizer()(" the AA")["input_ids"]


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Give a tokenizer that puts a space before every text, as those of Llama 2 and Mistral do."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "[", "]", "A", "B", "x", "▁x"]
    backend = Tokenizer(
        BPE({p: i for i, p in enumerate(pieces)}, [("▁", "x")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return wrap_tokenizer(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_no_space_is_put_before_text_inside_a_prompt() -> None:
    tokenizer = sentencepiece_like()
    text = PromptTokenizer(tokenizer)
    whole = tokenizer.convert_ids_to_tokens(text.encode_template("[A] x\n[B] x", at_start=True))
    assert whole == ["▁", "[", "A", "]", "▁x", "<0x0A>", "[", "B", "]", "▁x"]
    parts = [
        text.encode_template("[A]", at_start=True),
        text.encode(" x"),
        text.encode_template("\n[B]"),
        text.encode(" x"),
    ]
    assert [token for ids in parts for token in tokenizer.convert_ids_to_tokens(ids)] == whole
    assert "</s>" not in tokenizer.convert_ids_to_tokens(text.encode(" </s>"))


def test_the_system_text_has_its_own_turn() -> None:
    assert PLAIN.chat_text("Be fair.", "Rank.") == (
        "<|im_start|>system\nBe fair.<|im_end|>\n<|im_start|>user\nRank.<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHATML,
        CHATML.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"),
    ],
    ids=["refuses", "ignores"],
)
def test_without_a_system_role_its_text_starts_the_users_turn(template: str) -> None:
    text = PromptTokenizer(byte_tokenizer(chat_template=template))
    assert text.chat_text("Be fair.", "Rank.") == (
        "<|im_start|>user\nBe fair.\n\nRank.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_chat_template_the_prompt_is_plain_text() -> None:
    assert PromptTokenizer(byte_tokenizer(chat_template=None)).chat_text("Be fair.", "Rank.") == "Be fair.\n\nRank.\n\n"


def test_a_prompt_begins_with_the_start_token_where_the_tokenizer_would_put_one() -> None:
    tokenizer = byte_tokenizer()
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    text = PromptTokenizer(tokenizer)
    plain = PLAIN.encode_template("Query:", at_start=True)
    assert text.encode_template("Query:", at_start=True) == [start, *plain]
    assert text.encode_template("<|im_start|>Query:", at_start=True) == [start, *plain]
    assert text.encode_template("Query:") == plain

"""Text to token ids for prompts: trusted template text and untrusted user text are encoded differently."""

from __future__ import annotations

import itertools
import re
import threading
from typing import Any

SENTENCEPIECE_SPACE = "▁"


class PromptTokenizer:
    """A Hugging Face tokenizer, narrowed to what building a prompt takes.

    Parameters
    ----------
    tokenizer
        A ``PreTrainedTokenizerBase``.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Whether markup is recognised is a setting of the tokenizer, changed with every call.
        self._encoding = threading.Lock()
        # Added tokens made of spaces are text; all others are markup that user text must not be able to write.
        markup = {token: i for token, i in tokenizer.get_added_vocab().items() if len(token.strip()) > 1}
        self._markup_ids = frozenset(markup.values())
        # A look-ahead finds overlapping occurrences too.
        self._markup = re.compile(rf"(?=(?:{'|'.join(map(re.escape, markup)) or '(?!)'}))", re.IGNORECASE)
        first_piece = str(tokenizer.convert_ids_to_tokens(self._ids("x", recognise=False))[0])
        self._prepends_space = first_piece.startswith(SENTENCEPIECE_SPACE)
        first = tokenizer("x")["input_ids"][0]
        self._start_ids = [first] if first == tokenizer.bos_token_id else []
        self._newline_ids = self._ids("\n", recognise=False)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer itself."""
        return self._tokenizer

    @property
    def end_ids(self) -> set[int]:
        """Tokens with which the model ends a text or its turn."""
        return {i for i in (self._tokenizer.eos_token_id,) if i is not None}

    def decode(self, ids: list[int]) -> str:
        """Text of what a model wrote, special tokens left out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def encode(self, text: str) -> list[int]:
        """Encode user text as it occurs inside a prompt.

        Parameters
        ----------
        text
            Anything. ``<|im_end|>`` in it is ten plain characters.

        Returns
        -------
        list of int
            Token ids, none of them an added token of the tokenizer.
        """
        ids = self._inside(text, recognise=False)
        if self._markup_ids.isdisjoint(ids):
            return ids
        # An added token that is not marked as special is recognised all the same: cut each after its first character.
        cuts = [0, *(match.start() + 1 for match in self._markup.finditer(text)), len(text)]
        pieces = [text[start:end] for start, end in itertools.pairwise(cuts)]
        return [i for piece in pieces if piece for i in self._inside(piece, recognise=False)]

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:
        """Encode text of a template, recognising the special tokens written in it.

        Parameters
        ----------
        text
            Trusted text.
        at_start
            Whether the prompt begins with it: it then gets the start token, if the model has one and the text does
            not begin with it already.

        Returns
        -------
        list of int
            Token ids; nothing else is added at either end.
        """
        if not at_start:
            return self._inside(text, recognise=True)
        ids = self._ids(text, recognise=True)
        return ids if ids[:1] == self._start_ids else [*self._start_ids, *ids]

    def chat_text(self, system: str, user: str) -> str:
        """Write a conversation the way the model was trained to read it, up to where its answer begins.

        Parameters
        ----------
        system
            Instructions. They start the user's turn where the chat template has no system role or ignores it.
        user
            The user's turn.

        Returns
        -------
        str
            The text, special tokens included; without a chat template, plain paragraphs. `encode_template` puts the
            start token before it where it is missing.
        """
        from jinja2.exceptions import TemplateError

        if self._tokenizer.chat_template is None:
            return f"{system}\n\n{user}\n\n"
        try:
            text = self._render([{"role": "system", "content": system}, {"role": "user", "content": user}])
        except TemplateError:
            text = ""
        if system.strip() in text:
            return text
        return self._render([{"role": "user", "content": f"{system}\n\n{user}"}])

    def _render(self, messages: list[dict[str, str]]) -> str:
        # Templates of reasoning models open a train of thought unless told not to; others ignore the argument.
        return str(
            self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )

    def _inside(self, text: str, *, recognise: bool) -> list[int]:
        """Encode text that other text precedes.

        Tokenizers of the sentencepiece family put a space before whatever they are given, as if it began a text. After
        a line break, which never merges with what follows in these vocabularies, they do not.
        """
        if not self._prepends_space:
            return self._ids(text, recognise=recognise)
        ids = self._ids("\n" + text, recognise=recognise)
        anchor = len(self._newline_ids)
        return ids[anchor:] if ids[:anchor] == self._newline_ids else self._ids(text, recognise=recognise)

    def _ids(self, text: str, *, recognise: bool) -> list[int]:
        with self._encoding:
            encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=not recognise, verbose=False)
        return [int(i) for i in encoded["input_ids"]]

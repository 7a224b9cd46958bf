"""Prompts that show a query with one document or two: the wording is a YAML file, bound here to a model's tokenizer."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankers.errors import ConfigError, TooLargeError
from rankers.protocols import PromptEncoder
from rankers.types import Reading

FOLDER = Path(__file__).parent / "templates"
QUERY, DOCUMENT, EXAMPLES, PREFERRED = "query", "document", "examples", "preferred"
_FIELD = re.compile(r"\{(\w*)\}")
# Placeholders pass through the chat template between two private-use characters, which no template alters.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PLACEHOLDER = re.compile(f"{_OPEN}(\\w+){_CLOSE}")


class PromptTemplate(BaseModel):
    """The wording of a prompt.

    `user` holds the fields of its task: ``{query}`` and ``{document}``, or ``{document_a}``, ``{document_b}`` and
    perhaps ``{examples}``. `answer` is what the model's answer begins with; where the query's likelihood is measured
    it ends in ``{query}``. `words` names the answers that are read and, for each, the spellings that count as it, a
    space before them included. With `chat` false there are no turns: the prompt is `user` and `answer` as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    system: str = ""
    user: str
    answer: str = ""
    chat: bool = True
    example: str = ""
    words: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("system")
    @classmethod
    def _system_has_no_field(cls, value: str) -> str:
        if found := _FIELD.findall(value):
            raise ValueError(f"has the field {{{found[0]}}}; fields go into user")
        return value

    @field_validator("answer")
    @classmethod
    def _answer_ends_in_its_only_field(cls, value: str) -> str:
        if _FIELD.search(value.removesuffix(f"{{{QUERY}}}")):
            raise ValueError(f"may have no field but {{{QUERY}}} at its end; is {value!r}")
        return value

    @field_validator("words")
    @classmethod
    def _words_are_spelled(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for name, spellings in value.items():
            if not spellings or not all(spellings):
                raise ValueError(f"{name!r} needs at least one spelling, none of them empty; has {list(spellings)}")
        return value


def load_prompt_template(source: str | Path) -> PromptTemplate:
    """Read a template.

    Parameters
    ----------
    source
        Name of a packaged template (``mono_t5``, ``qwen3_reranker``, ``query_likelihood``, ``prp``), or path of a YAML
        file.

    Returns
    -------
    PromptTemplate
        Its fields checked; task and tokenizer are checked by `PairPrompt`.

    Raises
    ------
    ConfigError
        If there is no such template, or a field is missing, unknown or wrong.

    Examples
    --------
    >>> load_prompt_template("mono_t5").user
    'Query: {query} Document: {document} Relevant:'
    """
    packaged = FOLDER / f"{source}.yaml"
    path = packaged if isinstance(source, str) and packaged.is_file() else Path(source)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise ConfigError(f"no template {str(source)!r}: neither a file nor a packaged one ({names})")
    try:
        return PromptTemplate.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ConfigError(f"template {path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"template {path}: {where}: {first['msg']}") from error


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text as ids in each spelling a template has for it (with or without a space before), and how much was kept."""

    ids: Mapping[str, tuple[int, ...]]
    reading: Reading


Values = Mapping[str, EncodedText]
"""What each field of a prompt shows."""


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """The fixed ids of a prompt and what fills the gaps after them: the name of a field, the space before it.

    A last gap that no fixed ids follow is where the model's part begins.
    """

    ids: tuple[tuple[int, ...], ...]
    gaps: tuple[tuple[str, str], ...]

    def fill(self, values: Values) -> list[int]:
        prompt = list(self.ids[0])
        for (name, space), fixed in zip(self.gaps, self.ids[1:], strict=False):
            prompt.extend(values[name].ids[space])
            prompt.extend(fixed)
        return prompt


class PairPrompt:
    """A template bound to a model and a task.

    Fixed text is encoded apart from what users wrote, and once, so that no markup in a document is ever recognised. A
    single space before a field is encoded with what fills it, as tokenizers attach spaces to the word that follows.

    Parameters
    ----------
    template
        A template, the name of a packaged one, or the path of a YAML file.
    model
        Its tokenizer and chat template are used.
    fields
        What `user` has to show.
    words
        Names of the answers that are read; none where the query follows the prompt.
    passage_tokens
        Longest part of a document that is shown, in tokens.

    Raises
    ------
    ConfigError
        If the template has other fields or words, the chat template drops a field, a spelling of a word is not one
        token of its own where the answer goes on, or the documents alone fill the model's context.
    """

    def __init__(
        self,
        template: PromptTemplate | str | Path,
        model: PromptEncoder,
        *,
        fields: Collection[str],
        words: Sequence[str] = (),
        passage_tokens: int,
    ) -> None:
        if passage_tokens < 1:
            raise ConfigError(f"passage_tokens is {passage_tokens}, must be at least 1")
        self._template = template if isinstance(template, PromptTemplate) else load_prompt_template(template)
        self._model = model
        self.passage_tokens = passage_tokens
        self._check_task(fields, words)
        self._text = self._template_text(fields)
        self._skeletons: dict[tuple[str, ...], _Skeleton] = {}
        gaps = [*self._skeleton().gaps, *(self._skeleton(words[:1]).gaps if self.takes_examples else ())]
        self._spaces = {
            QUERY: {space for name, space in gaps if name.startswith(QUERY)},
            DOCUMENT: {space for name, space in gaps if name.startswith(DOCUMENT)},
        }
        self._continuation_space = self._skeleton().gaps[-1][1]
        self.words = self._word_ids(_PLACEHOLDER.split(self._text)[-1]) if words else {}
        shown = len(set(fields) - {QUERY})
        longest = self.fixed_tokens + shown * passage_tokens
        if model.context_tokens is not None and longest >= model.context_tokens:
            raise ConfigError(
                f"template {self._template.name!r} with {shown} documents of {passage_tokens} tokens makes a prompt of "
                f"{longest} before the query is counted, the model reads {model.context_tokens}; use fewer "
                "passage_tokens"
            )

    @property
    def takes_examples(self) -> bool:
        """Whether the template has a place for examples and a wording for each."""
        return bool(self._template.example)

    @property
    def fixed_tokens(self) -> int:
        """Tokens of a prompt beside query, documents and examples."""
        return sum(map(len, self._skeleton().ids))

    def encode_query(self, text: str) -> EncodedText:
        """Encode a query, on one line, whole."""
        return self._encode(text, self._spaces[QUERY], limit=None)

    def encode_document(self, text: str) -> EncodedText:
        """Encode the text of a document, on one line, cut to `passage_tokens` ids."""
        return self._encode(text, self._spaces[DOCUMENT], limit=self.passage_tokens)

    def continuation(self, query: EncodedText) -> tuple[int, ...]:
        """Give the ids of the query as they follow the prompt, where the template ends in it."""
        return query.ids[self._continuation_space]

    def render(self, values: Values, *, examples: Sequence[tuple[Values, str]] = ()) -> list[int]:
        """Fill the template.

        Parameters
        ----------
        values
            What each field shows, from `encode_query` and `encode_document`; the query in any case.
        examples
            The same for each example, and the word that is its right answer.

        Returns
        -------
        list of int
            The prompt, up to and including the beginning of the answer.

        Raises
        ------
        TooLargeError
            If query and examples make it, or it and the query after it, longer than the model's context.
        """
        filling = dict(values)
        for i, (shown, _) in enumerate(examples):
            filling |= {f"{name}_{i}": text for name, text in shown.items()}
        prompt = self._skeleton(tuple(word for _, word in examples)).fill(filling)
        length = len(prompt) + (0 if self.words else len(self.continuation(values[QUERY])))
        limit = self._model.context_tokens
        if limit is not None and length > limit:
            beside = f" after {len(examples)} examples" if examples else ""
            raise TooLargeError(
                f"the query has {values[QUERY].reading.tokens_total} tokens; with it{beside} the prompt has {length}, "
                f"the model reads {limit}; shorten the query{' or show fewer examples' if examples else ''}",
                field="query",
            )
        return prompt

    def _check_task(self, fields: Collection[str], words: Sequence[str]) -> None:
        template = self._template
        found = set(_FIELD.findall(template.user))
        if found - {EXAMPLES} != set(fields) or (EXAMPLES in found) != bool(template.example):
            raise ConfigError(
                f"template {template.name!r} shows {_braces(found)} and has {'an' if template.example else 'no'} "
                f"example; this task needs {_braces(fields)} once or more, and {{{EXAMPLES}}} only with an example"
            )
        wanted = {*fields, PREFERRED}
        if template.example and set(_FIELD.findall(template.example)) != wanted:
            raise ConfigError(f"template {template.name!r}: example needs {_braces(wanted)} and no other field")
        if set(template.words) != set(words):
            raise ConfigError(
                f"template {template.name!r} has the words {sorted(template.words)}, this task reads {sorted(words)}"
            )
        if template.answer.endswith(f"{{{QUERY}}}") == bool(words):
            needs = "may not" if words else "must"
            raise ConfigError(
                f"template {template.name!r}: in this task the answer {needs} end in {{{QUERY}}}; it is "
                f"{template.answer!r}"
            )

    def _template_text(self, fields: Collection[str]) -> str:
        template = self._template
        user = _mark(template.user)
        text = (self._model.chat_text(template.system, user) if template.chat else user) + _mark(template.answer)
        for field in fields:
            if _mark(f"{{{field}}}") not in text:
                raise ConfigError(
                    f"template {template.name!r}: the chat template of the model drops {{{field}}}; write the turns "
                    "out in user and set chat to false"
                )
        return text

    def _skeleton(self, answers: Sequence[str] = ()) -> _Skeleton:
        """Give the skeleton for examples whose right answers are these words."""
        key = tuple(answers)
        if key not in self._skeletons:
            examples = "".join(self._example(i, word) for i, word in enumerate(key))
            self._skeletons[key] = self._split(self._text.replace(_mark(f"{{{EXAMPLES}}}"), examples))
        return self._skeletons[key]

    def _example(self, i: int, word: str) -> str:
        spelling = self._template.words[word][0].strip()
        text = self._template.example.replace(f"{{{PREFERRED}}}", spelling)
        return _mark(text, suffix=f"_{i}") + "\n\n"

    def _split(self, text: str) -> _Skeleton:
        # split() with one group alternates fixed text and placeholder names.
        parts = _PLACEHOLDER.split(text)
        fixed, names = parts[::2], parts[1::2]
        spaces = [" " if part.endswith(" ") else "" for part in fixed[:-1]]
        fixed = [part.removesuffix(space) for part, space in zip(fixed, [*spaces, ""], strict=True)]
        if not self._template.words:
            fixed[-1:] = []  # the query that the text ends in is no part of the prompt
        ids = [tuple(self._model.encode_template(part, at_start=i == 0)) for i, part in enumerate(fixed)]
        return _Skeleton(tuple(ids), tuple(zip(names, spaces, strict=True)))

    def _word_ids(self, before: str) -> Mapping[str, tuple[int, ...]]:
        name, prefix = self._template.name, self._model.encode_template(before)
        owner: dict[int, str] = {}
        for spelling in (spelling for spellings in self._template.words.values() for spelling in spellings):
            encoded = self._model.encode_template(before + spelling)
            if encoded[:-1] != prefix:
                raise ConfigError(
                    f"template {name!r}: the word {spelling!r} is not one token of this model after {before[-20:]!r}; "
                    "choose another word, or move the space before it to the other side"
                )
            if encoded[-1] in owner:
                raise ConfigError(
                    f"template {name!r}: the words {owner[encoded[-1]]!r} and {spelling!r} are the same token"
                )
            owner[encoded[-1]] = spelling
        ids = {spelling: token for token, spelling in owner.items()}
        return {word: tuple(ids[s] for s in spellings) for word, spellings in self._template.words.items()}

    def _encode(self, text: str, spaces: Collection[str], *, limit: int | None) -> EncodedText:
        line = " ".join(text.split())
        # An empty text leaves its place empty: a space alone would be a token of its own.
        ids = {space: self._model.encode(space + line) if line else [] for space in spaces}
        total = max(map(len, ids.values()))
        used = total if limit is None else min(total, limit)
        return EncodedText({space: tuple(spelled[:limit]) for space, spelled in ids.items()}, Reading(used, total))


def _mark(text: str, suffix: str = "") -> str:
    return _FIELD.sub(rf"{_OPEN}\g<1>{suffix}{_CLOSE}", text)


def _braces(fields: Collection[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in sorted(fields)) or "no field"

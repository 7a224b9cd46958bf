"""A template, a query and passages to token ids, with each text encoded once however many windows show it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankers.errors import ConfigError, TooLargeError
from rankers.listwise.labels import LabelSet, check_labels, defuse
from rankers.listwise.template import Template
from rankers.protocols import PromptEncoder, TokenIds
from rankers.types import Reading

QUERY, PASSAGES, NUM, LABEL, TEXT, SCORE = "query", "passages", "num", "label", "text", "score"
# Placeholders pass through the chat template between two private-use characters, which no template alters.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PLACEHOLDER = re.compile(f"{_OPEN}(\\w+){_CLOSE}")


@dataclass(frozen=True, slots=True)
class EncodedPassage:
    """A document's text as ids, cut to the budget, and how much of it that is."""

    ids: tuple[int, ...]
    reading: Reading


@dataclass(frozen=True, slots=True)
class _Gap:
    """What fills a gap, the text that goes before it, and for a passage or its score the place in the window."""

    name: str
    space: str
    place: int


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """The fixed ids of a prompt and what fills the gaps: ids[0] gap[0] ids[1] ... gap[-1] ids[-1]."""

    ids: tuple[tuple[int, ...], ...]
    gaps: tuple[_Gap, ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))


class PromptBuilder:
    """A template bound to a model.

    Text that surrounds what the user sent is encoded once per window size, every passage once by `encode_passage`.
    A single space before a gap is encoded with what fills it, as tokenizers attach spaces to the word that follows.

    Parameters
    ----------
    template
        The wording.
    model
        Its tokenizer and chat template are used.
    passage_tokens
        Budget for the text of one passage.

    Raises
    ------
    ConfigError
        If the tokenizer cannot carry the labels where the template puts them.
    """

    def __init__(self, template: Template, model: PromptEncoder, *, passage_tokens: int) -> None:
        if passage_tokens < 1:
            raise ConfigError(f"passage_tokens is {passage_tokens}, must be at least 1")
        self._model = model
        self.passage_tokens = passage_tokens
        self.shows_scores = template.shows_scores
        self._passage = _mark(template.passage, (LABEL, TEXT, SCORE))
        self._text = model.chat_text(template.system, _mark(template.user, (QUERY, PASSAGES, NUM))) + template.answer
        for field in (QUERY, PASSAGES):
            if _mark(f"{{{field}}}", (field,)) not in self._text:
                raise ConfigError(f"template {template.name!r}: the chat template of the model drops {{{field}}}")
        before_label = _PLACEHOLDER.split(self._passage.split(_mark("{label}", (LABEL,)))[0])[-1]
        self.labels = (
            LabelSet(template.labels)
            if template.written
            else check_labels(
                template.labels,
                contexts=(f"\n{before_label}", _PLACEHOLDER.split(self._text)[-1]),
                encode=model.encode_template,
            )
        )
        self._skeletons: dict[int, _Skeleton] = {}
        self._passage_space = " " if self._passage.split(_mark("{text}", (TEXT,)))[0].endswith(" ") else ""

    def encode_passage(self, text: str) -> EncodedPassage:
        """Encode the text of a document: on one line, text like a label defused, cut to the budget by ids.

        Parameters
        ----------
        text
            Any length.

        Returns
        -------
        EncodedPassage
            At most `passage_tokens` ids, and how many there would have been.
        """
        ids = self._model.encode(self._passage_space + _one_line(text))
        kept = tuple(ids[: self.passage_tokens])
        return EncodedPassage(kept, Reading(tokens_used=len(kept), tokens_total=len(ids)))

    def encode_query(self, text: str) -> Mapping[str, TokenIds]:
        """Encode a query in each spelling the template has for it: with or without a space before."""
        line = _one_line(text)
        return {space: self._model.encode(space + line) for space in ("", " ")}

    def render(
        self, query: Mapping[str, TokenIds], passages: Sequence[EncodedPassage], scores: Sequence[float] = ()
    ) -> list[int]:
        """Fill the template.

        Parameters
        ----------
        query
            From `encode_query`.
        passages
            From `encode_passage`, in the order shown.
        scores
            Of the first stage, one per passage, where the template shows them.

        Returns
        -------
        list of int
            The prompt, up to and including the beginning of the answer.

        Raises
        ------
        TooLargeError
            If the query makes the prompt longer than the model's context, or there are more passages than labels.
        """
        self.labels.check_window(len(passages))
        skeleton = self._skeleton(len(passages))
        prompt = list(skeleton.ids[0])
        for gap, ids in zip(skeleton.gaps, skeleton.ids[1:], strict=True):
            if gap.name == QUERY:
                prompt.extend(query[gap.space])
            elif gap.name == TEXT:
                prompt.extend(passages[gap.place].ids)
            else:
                prompt.extend(self._model.encode(f"{gap.space}{scores[gap.place]:.3g}"))
            prompt.extend(ids)
        limit = self._model.context_tokens
        if limit is not None and len(prompt) > limit:
            raise TooLargeError(
                f"the query has {len(query[''])} tokens; with {len(passages)} passages of up to {self.passage_tokens} "
                f"tokens the prompt has {len(prompt)}, the model reads {limit}; shorten the query",
                field="query",
            )
        return prompt

    def fixed_tokens(self, size: int) -> int:
        """Tokens of a prompt for `size` passages beside the query and the passages themselves."""
        return self._skeleton(size).tokens

    @property
    def query_places(self) -> int:
        """How often the template shows the query."""
        return self._text.count(_mark("{query}", (QUERY,)))

    def _skeleton(self, size: int) -> _Skeleton:
        if size not in self._skeletons:
            self._skeletons[size] = self._build_skeleton(size)
        return self._skeletons[size]

    def _build_skeleton(self, size: int) -> _Skeleton:
        lines = [self._passage.replace(_mark("{label}", (LABEL,)), label) for label in self.labels.labels[:size]]
        text = self._text.replace(_mark("{num}", (NUM,)), str(size))
        text = text.replace(_mark("{passages}", (PASSAGES,)), "\n".join(lines))
        # split() with one group alternates fixed text and placeholder names.
        parts = _PLACEHOLDER.split(text)
        fixed, names = parts[::2], parts[1::2]
        gaps: list[_Gap] = []
        for i, name in enumerate(names):
            space = " " if fixed[i].endswith(" ") else ""
            fixed[i] = fixed[i].removesuffix(" ")
            gaps.append(_Gap(name, space, sum(gap.name == name for gap in gaps)))
        ids = [tuple(self._model.encode_template(part, at_start=i == 0)) for i, part in enumerate(fixed)]
        return _Skeleton(tuple(ids), tuple(gaps))


def _mark(text: str, fields: Sequence[str]) -> str:
    for field in fields:
        text = text.replace(f"{{{field}}}", f"{_OPEN}{field}{_CLOSE}")
    return text


def _one_line(text: str) -> str:
    return defuse(" ".join(text.split()))

"""Queries written by a language model that is shown a document and a few examples.

InPars (Bonifacio, Abonizio, Fadaee, Nogueira, arXiv 2202.05144) and InPars-Light (Boytsov, Patel, Sourabh, Nisar,
Kundu, Ramanathan, Nyberg, arXiv 2301.02998): a few pairs of a document and its query, then the document whose query is
wanted; the first line that the model writes is it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from rankers.errors import ConfigError, InvalidInputError, WorkerError
from rankers.listwise.readers.answers import ask_each
from rankers.llm_templates import PromptTemplate, load_prompt_template
from rankers.protocols import GenerativeModel
from rankers.types import Document
from training.evaluation.lines import numbered_lines

_FOLDER = Path(__file__).parent / "templates"
CHAT, COMPLETION = _FOLDER / "query_writer.yaml", _FOLDER / "query_completion.yaml"
"""Wordings for models that answer, and for those that go on with a text."""
FEWEST_WORDS, MOST_WORDS = 2, 40
"""A query of fewer or more words is none."""
EXAMPLES = (
    (
        "Sourdough rises without baker's yeast. Wild yeasts and lactic acid bacteria in the starter ferment the flour, "
        "which takes six to twelve hours at room temperature and gives the bread its taste.",
        "how long does sourdough need to rise",
    ),
    (
        "We followed 412 adults with mild hypertension for two years. Those who walked at least 30 minutes a day had a "
        "systolic pressure 6 mmHg lower than those who did not.",
        "does walking every day lower blood pressure",
    ),
    (
        "The strait between the two islands is 34 kilometres wide at its narrowest point. Ferries have crossed it "
        "since 1870; the rail tunnel below it was opened in 1988.",
        "when was the rail tunnel under the strait opened",
    ),
)
"""Documents and queries shown where no others are given; written for this file."""

_SHOWN = re.compile(r"^[\s\"'`*\-–]*(?:(?:relevant |search )?query\s*:)?[\s\"'`*]*", re.IGNORECASE)


class QueryWriter:
    """Writes one query per document.

    Parameters
    ----------
    model
        Writes.
    examples
        Documents and their queries, shown before each document.
    template
        The wording; `user` shows ``{examples}`` and ``{document}``, `example` shows ``{document}`` and ``{query}``.
    document_tokens
        Longest part of a document that is shown, in tokens.
    max_new_tokens
        Longest query, in tokens.

    Raises
    ------
    ConfigError
        If the template lacks a field, or the model's chat template drops one.
    """

    def __init__(
        self,
        model: GenerativeModel,
        *,
        examples: Sequence[tuple[str, str]] = EXAMPLES,
        template: PromptTemplate | Path = CHAT,
        document_tokens: int = 200,
        max_new_tokens: int = 40,
    ) -> None:
        template = template if isinstance(template, PromptTemplate) else load_prompt_template(template)
        self._model = model
        self._document_tokens = document_tokens
        self._max_new_tokens = max_new_tokens
        self._stop = "\n\n" if template.chat else "\n"  # an answer may begin with an empty line
        self._before, self._after = self._encode(template, examples)

    def write(self, documents: Sequence[Document]) -> list[str]:
        """Write queries.

        Parameters
        ----------
        documents
            Any number.

        Returns
        -------
        list of str
            One per document, in order; empty where the model wrote nothing that could be a query, or failed.

        Raises
        ------
        WorkerError
            If the model failed at every document.
        """
        prompts = [
            [
                *self._before,
                *self._model.encode(f" {' '.join(document.content.split())}")[: self._document_tokens],
                *self._after,
            ]
            for document in documents
        ]
        written = ask_each(
            lambda places: self._model.generate(
                [prompts[i] for i in places], max_new_tokens=self._max_new_tokens, stop=[self._stop]
            ),
            len(prompts),
        )
        failures = [answer for answer in written if isinstance(answer, WorkerError)]
        if failures and len(failures) == len(written):
            raise failures[0]
        return [
            clean_query(answer.text) if not isinstance(answer, WorkerError) and answer.complete else ""
            for answer in written
        ]

    def _encode(self, template: PromptTemplate, examples: Sequence[tuple[str, str]]) -> tuple[list[int], list[int]]:
        mark = "\ue000document\ue001"  # which no chat template alters
        if template.user.count("{document}") != 1 or template.user.count("{examples}") != 1:
            raise ConfigError(f"template {template.name!r}: user needs {{examples}} and {{document}} once each")
        if not all(field in template.example for field in ("{document}", "{query}")):
            raise ConfigError(f"template {template.name!r}: example needs {{document}} and {{query}}")
        shown = "".join(
            template.example.replace("{document}", " ".join(document.split())).replace("{query}", query) + "\n\n"
            for document, query in examples
        )
        before, after = template.user.split("{document}")
        user = before.replace("{examples}", shown) + mark + after.replace("{examples}", shown)
        text = (self._model.chat_text(template.system, user) if template.chat else user) + template.answer
        if text.count(mark) != 1:
            raise ConfigError(f"template {template.name!r}: the chat template of the model drops the document")
        # The space before the document is encoded with it: tokenizers attach spaces to the word that follows.
        before, after = text.split(mark)
        return (
            list(self._model.encode_template(before.removesuffix(" "), at_start=True)),
            list(self._model.encode_template(after)),
        )


def clean_query(text: str) -> str:
    """Read the query in what a model wrote.

    Parameters
    ----------
    text
        As it was written, reasoning in ``<think>`` included.

    Returns
    -------
    str
        Its first line without quotes and without "Query:"; empty if that has too few words, or too many.

    Examples
    --------
    >>> clean_query(' Query: "what is a flea"\\nDocument: ...')
    'what is a flea'
    >>> clean_query("Yes.")
    ''
    """
    lines = text.rpartition("</think>")[2].strip().splitlines()
    line = _SHOWN.sub("", lines[0]).rstrip("\"'`* ") if lines else ""
    return line if FEWEST_WORDS <= len(line.split()) <= MOST_WORDS else ""


def read_examples(path: Path) -> list[tuple[str, str]]:
    """Read pairs of a document and its query: JSON lines with `document` and `query`.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of tuple
        In the order of the file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    InvalidInputError
        If a line is no such pair, or there is none.
    """
    pairs = []
    for place, line in numbered_lines(path):
        try:
            record = json.loads(line)
            document, query = record["document"], record["query"]
            if not isinstance(document, str) or not isinstance(query, str):
                raise TypeError("both must be strings")
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"{place}: not an example with document and query: {error!r}") from error
        pairs.append((document, query))
    if not pairs:
        raise InvalidInputError(f"{path} has no examples; give at least one line with document and query")
    return pairs

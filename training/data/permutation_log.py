"""Windows that LLMs ordered, as listwise rerankers log them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankers.errors import InvalidInputError
from rankers.listwise.permutation import Repair, parse_permutation
from rankers.types import Query
from training.evaluation.lines import numbered_lines


@dataclass(frozen=True, slots=True)
class LoggedWindow:
    """What was shown, in that order, and the places of it, best first; whether the answer gave each of them a place."""

    query: Query
    document_ids: tuple[str, ...]
    order: tuple[int, ...]
    complete: bool


def read_permutation_log(path: Path) -> Iterator[LoggedWindow]:
    """Read a log of listwise prompts and answers.

    Parameters
    ----------
    path
        JSON lines: ``{"query_id", "query", "doc_ids": [...], "response": "[2] > [1] > ..."}``, where labels count the
        documents from 1. Other fields are ignored.

    Yields
    ------
    LoggedWindow
        One per line. An answer without any label is left out: it has no order.

    Raises
    ------
    NotFoundError
        If there is no such file.
    InvalidInputError
        If a line has another form; the message names it.
    """
    for place, line in numbered_lines(path):
        try:
            record = json.loads(line)
            query = Query(str(record["query_id"]), record["query"])
            document_ids = tuple(map(str, record["doc_ids"]))
            answer = record["response"]
            if not isinstance(answer, str) or not isinstance(query.text, str):
                raise TypeError("query and response must be strings")
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{place}: not a logged window with query_id, query, doc_ids and response: {error!r}"
            ) from error
        if len(set(document_ids)) < len(document_ids) or len(document_ids) < 2:
            raise InvalidInputError(f"{place}: doc_ids must be at least two, all different; got {len(document_ids)}")
        parsed = parse_permutation(answer, [str(number) for number in range(1, len(document_ids) + 1)])
        if Repair.NO_ANSWER not in parsed.repairs:
            yield LoggedWindow(query, document_ids, parsed.order, Repair.MISSING not in parsed.repairs)

"""Training lists to token ids: the prompt that serves, the answer the teacher would give, and its targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankers.errors import InvalidInputError, TooLargeError
from rankers.listwise.prompt import PromptBuilder
from rankers.protocols import PromptEncoder
from training.data.training_list import TrainingList

SEPARATOR = "] > ["
END = "]"


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt up to the place where the first identifier is read, and what is right there.

    `labels` are the tokens of the identifiers shown, `targets` how good their candidates are; `answer` is the
    permutation written out, from its first identifier on.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    labels: tuple[int, ...]
    targets: tuple[float, ...]


class ExampleStream:
    """Lists as an endless stream of windows; the n-th is a function of the seed and n alone.

    Lists of the same documents are one window with several queries: where the template shows the passages before the
    query, a pass computes them once for all of these. A list that is there twice, as a recipe's weights repeat lists,
    is in two windows, and so counts twice.

    Every turn over the windows takes them in a new order, draws how many candidates to show and which, and shuffles
    them, so that a model cannot learn to trust the place. A run that is resumed at n goes on with exactly what it would
    have seen.

    Parameters
    ----------
    lists
        At least one; those without two different targets teach nothing and are refused.
    builder
        Writes the prompt, as it does when serving.
    model
        The same model's tokenizer.
    sizes
        Fewest and most candidates of a window.
    queries
        Most queries of a window.
    seed
        Of every draw.

    Raises
    ------
    InvalidInputError
        If a list cannot teach.
    """

    def __init__(
        self,
        lists: Sequence[TrainingList],
        builder: PromptBuilder,
        model: PromptEncoder,
        *,
        sizes: tuple[int, int],
        queries: int = 1,
        seed: int,
    ) -> None:
        if not lists:
            raise InvalidInputError("there are no training lists; make some with: shortlist data lists")
        groups: dict[tuple[object, int], list[TrainingList]] = {}
        seen: Counter[object] = Counter()
        for item in lists:
            if len(set(item.targets)) < 2:
                raise InvalidInputError(
                    f"all targets of query {item.query.id!r} are equal, so its list teaches no order; leave it out"
                )
            ids = tuple(document.id for document in item.documents)
            groups.setdefault((ids, seen[ids, item.query.text]), []).append(item)
            seen[ids, item.query.text] += 1
        self._windows = [
            group[start : start + queries] for group in groups.values() for start in range(0, len(group), queries)
        ]
        self._builder = builder
        self._sizes = sizes
        self._seed = seed
        self._separator = model.encode_template(SEPARATOR)
        self._end = model.encode_template(END)

    def __getitem__(self, n: int) -> list[Example]:
        """Make the n-th window: an example for each of its queries, all of them showing the same candidates."""
        turn, place = divmod(n, len(self._windows))
        order = np.random.default_rng((self._seed, turn)).permutation(len(self._windows))
        random = np.random.default_rng((self._seed, turn, place))
        window = self._windows[int(order[place])]
        # Targets of one query say which candidates matter; every query has its turn.
        chosen = random.permutation(_choose(window[turn % len(window)].targets, self._sizes, random))
        examples = [self.render(item, [int(i) for i in chosen]) for item in window]
        return [example for example in examples if len(set(example.targets)) > 1]

    def render(self, item: TrainingList, shown: Sequence[int]) -> Example:
        """Show some candidates of a list.

        Parameters
        ----------
        item
            The list.
        shown
            Indexes of its documents, in the order in which they are to be shown.

        Returns
        -------
        Example
            The answer puts equal targets in the order of the list, which is that of the first stage.
        """
        builder = self._builder
        passages = [builder.encode_passage(item.documents[i].content) for i in shown]
        prompt = builder.render(builder.encode_query(item.query.text), passages)
        labels = builder.labels.ids[: len(shown)]
        best_first = sorted(range(len(shown)), key=lambda place: (-item.targets[shown[place]], shown[place]))
        answer: list[int] = []
        for place in best_first:
            answer += [*(self._separator if answer else ()), labels[place]]
        return Example(
            prompt=tuple(prompt),
            answer=(*answer, *self._end),
            labels=labels,
            targets=tuple(item.targets[i] for i in shown),
        )


def check_lengths(
    lists: Sequence[TrainingList], builder: PromptBuilder, model: PromptEncoder, *, candidates: int, writes: bool
) -> None:
    """Refuse lists that could be drawn longer than the model reads: before training, not at the step that draws one.

    Parameters
    ----------
    lists
        To train on.
    builder
        Writes the prompt.
    model
        The same model's tokenizer.
    candidates
        Most of a window.
    writes
        Whether the answer is read too.

    Raises
    ------
    TooLargeError
        If a list's longest passages, its query and the answer do not fit; names the first such list.
    """
    limit = model.context_tokens
    if limit is None:
        return
    separator = len(model.encode_template(SEPARATOR))
    end = len(model.encode_template(END))
    for item in lists:
        size = min(candidates, len(item.documents))
        # The last token of an answer predicts nothing, so it is not read.
        answer = size + (size - 1) * separator + end - 1 if writes else 0
        fixed = builder.fixed_tokens(size) + answer
        # Encoding every text would take minutes: a query has no more tokens than bytes, and a space before it.
        most = size * builder.passage_tokens + builder.query_places * (len(item.query.text.encode()) + 1)
        if fixed + most <= limit:
            continue
        passages = sorted(len(builder.encode_passage(document.content).ids) for document in item.documents)
        query = max(map(len, builder.encode_query(item.query.text).values()))
        tokens = fixed + sum(passages[-size:]) + builder.query_places * query
        if tokens > limit:
            raise TooLargeError(
                f"the list of query {item.query.id!r} takes up to {tokens} tokens, and the model reads {limit}; lower "
                f"max_candidates (now {candidates}) or passage_tokens (now {builder.passage_tokens}), or leave it out"
            )


def _choose(targets: Sequence[float], sizes: tuple[int, int], random: np.random.Generator) -> list[int]:
    """Draw candidates, one of the best and a worse one among them, or there would be nothing to learn."""
    size = min(int(random.integers(sizes[0], sizes[1] + 1)), len(targets))
    values = np.asarray(targets)
    best = int(random.choice(np.flatnonzero(values == values.max())))
    worse = int(random.choice(np.flatnonzero(values < values.max())))
    rest = [i for i in range(len(targets)) if i not in (best, worse)]
    return [best, worse, *(int(i) for i in random.choice(rest, size=size - 2, replace=False))]

"""Training lists to token ids: the prompt that serves, the answer the teacher would give, and its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankers.errors import InvalidInputError
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
    query, a pass computes them once for all of these.

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
        groups: dict[tuple[str, ...], list[TrainingList]] = {}
        for item in lists:
            if len(set(item.targets)) < 2:
                raise InvalidInputError(
                    f"all targets of query {item.query.id!r} are equal, so its list teaches no order; leave it out"
                )
            groups.setdefault(tuple(document.id for document in item.documents), []).append(item)
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


def _choose(targets: Sequence[float], sizes: tuple[int, int], random: np.random.Generator) -> list[int]:
    """Draw candidates, one of the best and a worse one among them, or there would be nothing to learn."""
    size = min(int(random.integers(sizes[0], sizes[1] + 1)), len(targets))
    values = np.asarray(targets)
    best = int(random.choice(np.flatnonzero(values == values.max())))
    worse = int(random.choice(np.flatnonzero(values < values.max())))
    rest = [i for i in range(len(targets)) if i not in (best, worse)]
    return [best, worse, *(int(i) for i in random.choice(rest, size=size - 2, replace=False))]

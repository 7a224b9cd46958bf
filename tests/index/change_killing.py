"""Kills a process that changes documents, and compares what is found afterwards with what was acknowledged."""

from __future__ import annotations

import random
from dataclasses import dataclass

from index.directory import IndexDirectory
from index.spann.check import check
from index.spann.live import SpannIndex
from tests.index.change_victim import built_ids, word_of
from tests.index.spann.killing import Killer, Versions, applied, contents, difference


@dataclass
class ChangeKiller(Killer):
    """Holds documents, words and vectors against each other: all three must be as before a change, or as after it."""

    victim: str = "tests.index.change_victim"
    most_steps: tuple[int, int] = (150, 600)
    most_seconds: tuple[float, float] = (2.0, 3.0)

    def _is_built(self) -> bool:
        return IndexDirectory(self.root).current() is not None

    def _built_state(self) -> Versions:
        return dict.fromkeys(built_ids(), 0)

    def _check(self) -> None:
        directory = IndexDirectory(self.root)
        manifest = directory.current()
        if manifest is None:
            assert not self.state, "an index that was built is gone"
            return
        before = self.state or self._built_state()
        found = {document.id: int(document.metadata["version"]) for document in directory.corpus.stream()}
        allowed = [before, applied(before, self.pending) if self.pending else before]
        assert found in allowed, difference(found, before)
        words = {name: f"{name}v{version}" for name, version in found.items()}
        assert {document.id: document.text for document in directory.corpus.stream()} == words
        self.state = found
        assert manifest.documents == len(found)
        self._check_words(directory, [before, found])
        dense = directory.open_dense()
        assert isinstance(dense, SpannIndex)
        assert contents(dense) == found, difference(contents(dense), found)
        assert [finding for finding in check(directory.spann_folder()) if not finding.harmless] == []

    def _check_words(self, directory: IndexDirectory, states: list[Versions]) -> None:
        """Every document is found by its word, and by no word that it had before."""
        index = directory.open_bm25()
        assert set(index.ids) == set(self.state)
        names = set(random.Random(self.rounds).sample(sorted(self.state), min(20, len(self.state))))
        names |= set(self.pending["ids"]) if self.pending else set()
        for state in states:
            for name in names & set(state):
                (hits,) = index.search([word_of(name, state[name])], 5)
                assert [hit for hit, _ in hits] == ([name] if self.state.get(name) == state[name] else [])

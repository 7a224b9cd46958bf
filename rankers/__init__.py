"""The vocabulary of Shortlist, and everything that orders candidates.

Importing this package is cheap: it loads neither torch nor faiss. Modules that need a heavy library import it
themselves.
"""

from rankers.types import Document, Query, Ranking, ScoredDocument, ScoreKind

__all__ = ["Document", "Query", "Ranking", "ScoreKind", "ScoredDocument"]

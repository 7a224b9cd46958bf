"""Setwise (arXiv 2310.09497): which of these is the most relevant? The logits of the labels answer."""

from __future__ import annotations

from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.windows import Signal


class SetwiseReader(FirstTokenReader):
    """Reads which candidate of a window is the best, with one prefill; no token is generated.

    It reads as `FirstTokenReader` does, from a template that asks for one label. The logits are those of being the
    best, so that the places after the first are not an answer that was asked for.

    Parameters
    ----------
    model
        Gives the logits.
    """

    gives = Signal.BEST | Signal.LOGITS

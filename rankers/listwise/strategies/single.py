"""One window that shows every candidate, for models with a long context."""

from __future__ import annotations

from dataclasses import dataclass

from rankers.listwise.windows import Plan


@dataclass(frozen=True, slots=True)
class Single:
    """All candidates at once. There can be no more of them than labels."""

    @property
    def window_size(self) -> None:
        """No bound of its own."""
        return

    def plan(self, count: int) -> Plan:
        """Order `count` candidates with one window."""
        (outcome,) = yield [tuple(range(count))]
        return outcome.order

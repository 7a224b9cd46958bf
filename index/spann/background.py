"""A merge in a thread of its own, and writers who wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from index.spann.merging import MergeStoppedError
from rankers.errors import ShortlistError

logger = logging.getLogger(__name__)


class BackgroundMerge:
    """Runs one merge at a time. Everything is called by who holds the lock of writers.

    Parameters
    ----------
    merge
        Merges what there is; it takes the lock itself, now and then.
    lock
        Of writers.
    """

    def __init__(self, merge: Callable[[], None], lock: threading.Lock) -> None:
        self.error: ShortlistError | None = None
        """Why the last merge failed; None if it did not."""
        self._merge = merge
        self._ended = threading.Condition(lock)
        self._is_running = False

    def start(self) -> None:
        """Begin a merge, unless one is running."""
        if not self._is_running:
            threading.Thread(target=self._run, name="spann-merge", daemon=True).start()
            self._is_running = True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Let go of the lock until no merge is running, and say whether that came in time."""
        return self._ended.wait_for(lambda: not self._is_running, timeout_s)

    def _run(self) -> None:
        error: ShortlistError | None = None
        try:
            self._merge()
        except MergeStoppedError:
            pass
        except ShortlistError as failure:
            logger.warning("a merge in the background failed: %s", failure)
            error = failure
        finally:
            with self._ended:
                self.error = error
                self._is_running = False
                self._ended.notify_all()

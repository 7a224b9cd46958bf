"""A merge in a thread of its own, and writers who wait for it."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable

from index.spann.merging import MergeStoppedError
from rankers.errors import ShortlistError, StorageError

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
        """Begin a merge, unless one is running; where no thread can be had, `error` says so."""
        if self._is_running:
            return
        try:
            threading.Thread(target=self._run, name="spann-merge", daemon=True).start()
            self._is_running = True
        except RuntimeError as failure:
            # What was written before this is written, whether or not it can be merged.
            self.error = _ended_by(failure)

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
            _let_go(failure)
        except BaseException as failure:  # the edge of the thread: writers that wait learn of whatever ends it
            logger.exception("a merge in the background died")
            error = _ended_by(failure)
            _let_go(failure)
        finally:
            with self._ended:
                self.error = error
                self._is_running = False
                self._ended.notify_all()


def _ended_by(failure: BaseException) -> StorageError:
    """Say what ended a merge that nothing here foresaw; the message of a `MemoryError`, for one, is empty."""
    error = StorageError(f"the merge ended with {type(failure).__name__}: {failure}".rstrip(": "))
    error.__cause__ = failure
    return error


def _let_go(failure: BaseException | None) -> None:
    """Empty the frames an error came through: they hold what was being built, and files of segments."""
    while failure is not None:
        traceback.clear_frames(failure.__traceback__)
        failure = failure.__cause__ or failure.__context__

"""Every error Shortlist raises on purpose.

::

    ShortlistError
    ├── InvalidInputError      what the caller sent cannot be used (also a ValueError)
    │   └── TooLargeError      it could be, were it smaller
    ├── ConfigError            shortlist.yaml, a template or a setting is wrong
    ├── NotFoundError          a pipeline, model, index or document that does not exist
    ├── MissingExtraError      an optional dependency is not installed
    ├── OverloadedError        the queue is full: try again after `retry_after_s`
    ├── DeadlineError          the time allowed for a request has passed
    ├── NotReadyError          nothing is live yet
    ├── CorruptIndexError      a file of an index is missing, cut short or changed
    ├── StorageError           a disk is full, or failed to keep something; the cause is chained
    └── WorkerError            the code behind a model failed; the cause is chained
        └── PartialFailureError  some calls of a batch did, and it has what the others gave

`app.errors` maps this tree to HTTP, and nothing else does. Every message says what was wrong, with the value, and what
to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping


class ShortlistError(Exception):
    """Base of all errors raised on purpose."""


class InvalidInputError(ShortlistError, ValueError):
    """What the caller sent cannot be used.

    Parameters
    ----------
    message
        What was wrong, with the value, and what to do.
    field
        Name of the offending input, dotted for nested ones (``documents.3.text``).
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class TooLargeError(InvalidInputError):
    """What the caller sent is over a limit that the message names."""


class ConfigError(ShortlistError):
    """A configuration file, a template or a setting is wrong."""


class NotFoundError(ShortlistError):
    """A pipeline, model, index or document does not exist."""


class MissingExtraError(ShortlistError):
    """An optional dependency is not installed.

    Parameters
    ----------
    package
        The module that could not be imported.
    extra
        The extra of ``shortlist-rank`` that brings it.
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package!r} is not installed; run: pip install 'shortlist-rank[{extra}]'")
        self.package = package
        self.extra = extra


class OverloadedError(ShortlistError):
    """The queue is full.

    Parameters
    ----------
    message
        What is full, with the limit.
    retry_after_s
        Seconds after which a new attempt is expected to be admitted.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(ShortlistError):
    """The time allowed for a request has passed."""


class NotReadyError(ShortlistError):
    """Nothing is live yet; the message says what is missing."""


class CorruptIndexError(ShortlistError):
    """A file of an index is missing, cut short or changed; the message names it."""


class StorageError(ShortlistError):
    """A disk is full or failed, so that something was not kept; the cause is chained."""


class WorkerError(ShortlistError):
    """The code behind a model failed; the cause is chained."""


class PartialFailureError(WorkerError):
    """Some items of a batch failed; what the others gave is kept. The message is that of the first that failed.

    Parameters
    ----------
    results
        What was found out, by the place of the item in the batch.
    errors
        What failed, by place; at least one. An item that is in neither was not tried.
    """

    def __init__(self, results: Mapping[int, object], errors: Mapping[int, WorkerError]) -> None:
        super().__init__(str(errors[min(errors)]))
        self.results = results
        self.errors = errors

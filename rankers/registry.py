"""Models on disk: one immutable directory per version, a pointer to the one that is live, and who moved it when."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rankers.errors import InvalidInputError, NotFoundError

CARD_FILE = "model_card.json"
LIVE_FILE = "LIVE"
HISTORY_FILE = "HISTORY.jsonl"
LOCK_FILE = ".lock"
INCOMING = ".incoming-"
ABANDONED_S = 24 * 3600
"""After so long without a change, what a killed process was writing is removed."""
DISPENSABLE = frozenset({"ltr"})
"""Kinds of models that a stage can do without: it keeps the order that comes in."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Where a model comes from and how good it is.

    `kind` is what loads it (``causal-lm``, ``encoder``, ``cross-encoder``, ``ltr``), `data_hash` identifies its
    training data or, for a model taken over, the file it was made from; `parent` is the version it was trained from.
    `feature_set` names the numbers a learned ranker was trained on, as ``name@version``.
    """

    name: str
    version: str
    kind: str
    source: str
    licence: str
    data_hash: str
    parent: str | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    feature_set: str | None = None

    @property
    def label(self) -> str:
        """What logs call it: ``name@version``."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Promotion:
    """A move of the live pointer: from `previous` to `version`, at an ISO 8601 time in UTC.

    `previous` is None where nothing was live before, `version` where nothing is after a rollback.
    """

    at: str
    action: Literal["promote", "rollback"]
    version: str | None
    previous: str | None
    who: str
    why: str


class ModelRegistry:
    """The models under one folder.

    ::

        <root>/<name>/<version>/        a model and its card, never changed once it is there
        <root>/<name>/LIVE              the version that serves; not there if none does
        <root>/<name>/HISTORY.jsonl     every move of that pointer, oldest first; only ever appended to

    The only file that may come to a version later is a calibration of its scores (`rankers.calibration`).

    Readers need no lock: a version appears whole, and the pointer moves by one rename, or goes. Writers of one model
    take turns, also those of other processes.

    Parameters
    ----------
    root
        The folder; it is made when the first model is added.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, card: ModelCard, write: Callable[[Path], None], promote: bool = True, *, why: str = "added") -> Path:
        """Add a version.

        Parameters
        ----------
        card
            Stored beside the model.
        write
            Called with an empty folder to fill. The version appears only after it has returned.
        promote
            Whether to make it live.
        why
            For the history, if it is made live.

        Returns
        -------
        Path
            The model's directory. What is in it is never to be changed again.

        Raises
        ------
        InvalidInputError
            If a name cannot be a folder, or the version exists.
        """
        home = self._home(card.name)
        target = home / _folder_name(card.version)
        _refuse_second(card, target)
        home.mkdir(parents=True, exist_ok=True)
        for left in home.glob(f"{INCOMING}*"):
            with suppress(FileNotFoundError):  # another writer is done with it meanwhile
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=INCOMING, dir=home))
        try:
            write(staging)
            (staging / CARD_FILE).write_text(json.dumps(asdict(card), indent=2) + "\n")
            # Temporary folders are for their owner alone; a model is for every user of the machine.
            for path in (staging, *staging.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            with self._lock(card.name):
                _refuse_second(card, target)
                staging.rename(target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if promote:
            self.promote(card.name, card.version, why=why)
        return target

    def promote(self, name: str, version: str, *, who: str | None = None, why: str = "") -> None:
        """Make a version live: one atomic rename. Nothing happens, and nothing is noted, if it is live already.

        Parameters
        ----------
        name
            A model in this registry.
        version
            One of its versions.
        who
            For the history; the user of this process if not given.
        why
            For the history.

        Raises
        ------
        NotFoundError
            If there is no such version.
        """
        self.card(name, version)
        with self._lock(name):
            if self.live_version(name) != version:
                self._move(name, version, "promote", who=who, why=why)

    def rollback(self, name: str, *, who: str | None = None, why: str = "") -> str | None:
        """Make the version live that was so before the last promotion; again, and it is the one before that.

        Before the first promotion nothing was live, so that is where rolling back ends: the model is out of service,
        and stages keep the order that comes in. A kind of model that stages cannot do without stays.

        Parameters
        ----------
        name
            A model in this registry.
        who
            For the history; the user of this process if not given.
        why
            For the history.

        Returns
        -------
        str or None
            The version that is live now, None if nothing is.

        Raises
        ------
        NotFoundError
            If nothing is live; or if no earlier version was, or none of them exists any more, and the model is of a
            kind that stages cannot do without.
        """
        with self._lock(name):
            live = self.live_version(name)
            if live is None:
                raise NotFoundError(f"no version of model {name!r} is live, so none can be rolled back")
            earlier = (
                version
                for version in reversed(self._promoted(name)[:-1])
                if version != live and (self._home(name) / version / CARD_FILE).is_file()
            )
            version = next(earlier, None)
            if version is None and (kind := self._kind(name, live)) not in DISPENSABLE:
                raise NotFoundError(
                    f"model {name!r} has no version that was live before {live!r}, and stages cannot do without a "
                    f"model of kind {kind!r}; promote another one by name"
                )
            self._move(name, version, "rollback", who=who, why=why)
        return version

    def live_version(self, name: str) -> str | None:
        """Version that is live, None where the registry has no such model, or none of it is live."""
        try:
            return (self.root / name / LIVE_FILE).read_text().strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def live(self, name: str) -> Path | None:
        """Directory of the live version, None where there is none."""
        version = self.live_version(name)
        return self.root / name / version if version is not None else None

    def label(self, folder: Path) -> str | None:
        """Name a model's directory as logs do, ``name@version``; None if it is none of this registry."""
        name, version = folder.parent.name, folder.name
        return f"{name}@{version}" if folder.parent.parent.resolve() == self.root.resolve() else None

    def card(self, name: str, version: str | None = None) -> ModelCard:
        """Card of a version, or of the live one; raises `NotFoundError` naming the versions there are."""
        version = version if version is not None else self.live_version(name)
        path = self._home(name) / _folder_name(version) / CARD_FILE if version is not None else None
        if path is None or not path.is_file():
            known = [card.version for card, _ in self.cards() if card.name == name]
            raise NotFoundError(
                f"model {name!r} has no {f'version {version!r}' if version else 'live version'} under {self.root}; "
                f"it has {', '.join(known) or 'none at all'}"
            )
        return _read_card(path)

    def cards(self) -> list[tuple[ModelCard, bool]]:
        """Every version's card and whether it is live, by name and version."""
        found = []
        for path in sorted(self.root.glob(f"*/*/{CARD_FILE}")):
            if path.parent.name.startswith("."):
                continue
            card = _read_card(path)
            found.append((card, self.live_version(card.name) == card.version))
        return found

    def history(self, name: str) -> list[Promotion]:
        """Every move of the live pointer, oldest first; without notes that a full disk cut off."""
        path = self._home(name) / HISTORY_FILE
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return [note for line in lines if (note := _read_note(line)) is not None]

    def compare(self, name: str, versions: Sequence[str]) -> dict[str, list[float | None]]:
        """Put the measures of versions side by side.

        Parameters
        ----------
        name
            A model in this registry.
        versions
            Any of its versions, V of them.

        Returns
        -------
        dict
            V values by measure, in the order of `versions`; None where a card does not have it.

        Raises
        ------
        NotFoundError
            If there is no such version.
        """
        cards = [self.card(name, version) for version in versions]
        measures = dict.fromkeys(measure for card in cards for measure in card.measures)
        return {measure: [card.measures.get(measure) for card in cards] for measure in measures}

    def _promoted(self, name: str) -> list[str]:
        """Versions as they went live, the live one last, without those that were rolled back."""
        stack: list[str] = []
        for move in self.history(name):
            _settle_on(stack, move.previous)
            if move.version is None:
                stack.clear()
            elif move.action == "promote":
                stack.append(move.version)
            elif move.version in stack:
                del stack[len(stack) - stack[::-1].index(move.version) :]
        _settle_on(stack, self.live_version(name))
        return stack

    def _kind(self, name: str, version: str) -> str:
        """Kind of a version; of one that has no card any more, that of another one."""
        cards = {card.version: card.kind for card, _ in self.cards() if card.name == name}
        return cards.get(version) or next(iter(cards.values()), "")

    def _move(
        self, name: str, version: str | None, action: Literal["promote", "rollback"], *, who: str | None, why: str
    ) -> None:
        """Move the pointer, then note it; the caller holds the lock."""
        home = self._home(name)
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        note = Promotion(moment, action, version, self.live_version(name), who or _user(), why)
        if version is None:
            (home / LIVE_FILE).unlink()
        else:
            staged = home / f".{LIVE_FILE}"
            with staged.open("w") as file:
                file.write(version + "\n")
                file.flush()
                os.fsync(file.fileno())
            staged.replace(home / LIVE_FILE)
        history = home / HISTORY_FILE
        ends_whole = not history.is_file() or history.read_bytes().endswith(b"\n")
        with history.open("a") as file:
            file.write(("" if ends_whole else "\n") + json.dumps(asdict(note)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _home(self, name: str) -> Path:
        return self.root / _folder_name(name)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        home = self._home(name)
        if not home.is_dir():
            raise NotFoundError(f"no model {name!r} under {self.root}")
        descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _settle_on(stack: list[str], live: str | None) -> None:
    """Go by what was live although no move says so: an older registry, or a crash before the note was written."""
    if live is None:
        stack.clear()
    elif not stack or stack[-1] != live:
        stack.append(live)


def _folder_name(part: str) -> str:
    if not _NAME.fullmatch(part):
        raise InvalidInputError(f"{part!r} must match {_NAME.pattern} to name a model folder", field="name")
    return part


def _refuse_second(card: ModelCard, target: Path) -> None:
    if target.exists():
        raise InvalidInputError(f"model {card.name!r} has a version {card.version!r}; versions are never changed")


def _read_note(line: bytes) -> Promotion | None:
    try:
        return Promotion(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _read_card(path: Path) -> ModelCard:
    return ModelCard(**json.loads(path.read_text()))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"uid {os.getuid()}"

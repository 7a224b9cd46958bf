"""Models that come with Shortlist as the part that training changed; the rest is the model they were trained from.

A folder under ``rankers/models`` holds one model::

    shipped.json           name of the base, as `rankers.sources.resolve_model` finds it, and how its tensors are named
    weights.safetensors    tensors that differ from the base, float16; or LoRA adapters, as peft writes them
    adapter_config.json    peft's configuration, only with adapters
    config.json            of the whole model, only if it is not the base's
    model_card.json        its card in the registry
    README.md              its card for people
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rankers.errors import ConfigError
from rankers.registry import CARD_FILE, ModelCard

SHIPPED_DIR = Path(__file__).parent / "models"
BASE_FILE = "shipped.json"
WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.safetensors"
ADAPTER_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_FOLDER = "adapter"
"""Where the adapters of a model in training are, as peft writes them, beside the model they are merged into."""
ADAPTER_SETTINGS = ("peft_type", "task_type", "r", "lora_alpha", "target_modules", "bias", "fan_in_fan_out")
"""What of peft's configuration says what the adapters are, and not where they were made."""
OWN_FILES = frozenset({BASE_FILE, WEIGHTS_FILE, ADAPTER_FILE, CARD_FILE})


def shipped_names(root: Path = SHIPPED_DIR) -> frozenset[str]:
    """Names of the models that are shipped."""
    return frozenset(path.parent.name for path in root.glob(f"*/{BASE_FILE}"))


def base_of(folder: Path) -> str:
    """Name of the model that a shipped one was trained from."""
    return str(json.loads((folder / BASE_FILE).read_text())["base"])


def card_of(folder: Path) -> ModelCard:
    """Card of a shipped model."""
    return ModelCard(**json.loads((folder / CARD_FILE).read_text()))


def assemble(folder: Path, base: Path, target: Path) -> None:
    """Put a shipped model together with its base, float32.

    Parameters
    ----------
    folder
        The shipped part.
    base
        Folder of the base, with its weights in one ``model.safetensors``.
    target
        An empty folder; gets a model that loads without Shortlist knowing where it is from, and beside it the adapters
        it was made with, if any, so that training goes on with them.

    Raises
    ------
    ConfigError
        If a file is missing, or adapters do not fit the base.
    """
    from safetensors.torch import load_file, save_file

    settings = json.loads((folder / BASE_FILE).read_text())
    for path in (folder / WEIGHTS_FILE, base / MODEL_FILE):
        if not path.is_file():
            raise ConfigError(f"no {path.name} in {path.parent}, which {folder.name} is put together from")
    trained = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    weights = {settings["prefix"] + name: tensor.float() for name, tensor in load_file(base / MODEL_FILE).items()}
    for name in settings["dropped"]:
        weights.pop(name, None)
    if (folder / ADAPTER_FILE).is_file():
        config = json.loads((folder / ADAPTER_FILE).read_text())
        _merge_adapters(weights, trained, config)
        adapters = target / ADAPTER_FOLDER
        adapters.mkdir()
        save_file(trained, adapters / ADAPTER_WEIGHTS, {"format": "pt"})
        # Absolute: whoever goes on with the adapters need not start where they were put together.
        config["base_model_name_or_path"] = str(base.resolve())
        (adapters / ADAPTER_FILE).write_text(json.dumps(config, indent=2))
    else:
        weights |= trained
    for path in sorted(base.iterdir()):
        if path.is_file() and path.suffix in {".json", ".txt", ".jinja"} and path.name != CARD_FILE:
            shutil.copy(path, target)
    (target / "modules.json").unlink(missing_ok=True)  # of a bi-encoder: the trained one need not be one
    for path in folder.iterdir():
        if path.is_file() and path.name not in OWN_FILES:
            shutil.copy(path, target)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, target / MODEL_FILE, {"format": "pt"})


def write_shipped(trained: Path, base: Path, target: Path, *, base_name: str, prefix: str = "") -> int:
    """Keep of a trained model what differs from its base, as float16; the inverse of `assemble` up to rounding.

    Parameters
    ----------
    trained
        Folder of the trained model; of one that was trained with adapters, these are kept and nothing else.
    base
        Folder of the base.
    target
        Gets ``shipped.json``, ``weights.safetensors`` and the small files that differ from the base's.
    base_name
        What `rankers.sources.resolve_model` finds the base by.
    prefix
        What the names of the base's tensors begin with in the trained model, such as ``bert.``.

    Returns
    -------
    int
        Bytes of the weights.
    """
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True, exist_ok=True)
    adapters = trained / ADAPTER_FOLDER
    if adapters.is_dir():
        changed, dropped = load_file(adapters / ADAPTER_WEIGHTS), []
        config = json.loads((adapters / ADAPTER_FILE).read_text())
        kept = {name: config[name] for name in ADAPTER_SETTINGS if name in config}
        (target / ADAPTER_FILE).write_text(json.dumps(kept, indent=2) + "\n")
    else:
        old = {prefix + name: tensor for name, tensor in load_file(base / MODEL_FILE).items()}
        new = load_file(trained / MODEL_FILE)
        changed = {
            name: tensor
            for name, tensor in new.items()
            if name not in old or not torch.equal(old[name].to(tensor.dtype), tensor)
        }
        dropped = sorted(set(old) - set(new))
    weights = {name: tensor.half().contiguous() for name, tensor in changed.items()}
    save_file(weights, target / WEIGHTS_FILE, {"format": "pt"})
    (target / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
    settings = {"base": base_name, "prefix": prefix, "dropped": dropped}
    (target / BASE_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    for path in trained.glob("*.json"):
        same = (base / path.name).is_file() and (base / path.name).read_bytes() == path.read_bytes()
        of_the_base = adapters.is_dir() and path.name != "training.json"
        if not same and not of_the_base and path.name not in {CARD_FILE, "history.json", "tokenizer.json"}:
            shutil.copy(path, target)
    return (target / WEIGHTS_FILE).stat().st_size


def _merge_adapters(weights: dict[str, Any], adapters: dict[str, Any], config: dict[str, Any]) -> None:
    """Add alpha / r * B A to every weight that has adapters (LoRA, Hu et al., ICLR 2022, section 4.1)."""
    scale = config["lora_alpha"] / config["r"]
    for name, down in adapters.items():
        if not name.endswith(".lora_A.weight"):
            continue
        target = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
        if target not in weights:
            raise ConfigError(f"the adapter {name!r} belongs to {target!r}, which its base does not have")
        weights[target] += scale * (adapters[name.replace(".lora_A.", ".lora_B.")] @ down)

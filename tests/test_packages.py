"""The four packages are ours, typed, cheap to import, and layered."""

import subprocess
import sys
from pathlib import Path

import pytest

import app
import index
import rankers
import training

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "faiss", "transformers", "sentence_transformers", "scipy", "matplotlib")


@pytest.mark.parametrize("package", [app, rankers, index, training])
def test_package_is_ours_and_typed(package: object) -> None:
    file = Path(str(getattr(package, "__file__", None)))
    assert file.parent.parent == ROOT
    assert (file.parent / "py.typed").is_file()


def test_importing_the_packages_is_cheap() -> None:
    code = (
        "import sys, time; started = time.process_time(); import app, rankers, index, training;"
        f"print(time.process_time() - started, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, heavy = done.stdout.split(maxsplit=1)
    assert float(seconds) < 0.5
    assert heavy.strip() == "[]"


def test_help_of_the_command_loads_nothing_heavy() -> None:
    code = (
        "import sys; from app.cli.main import build_cli; build_cli();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"

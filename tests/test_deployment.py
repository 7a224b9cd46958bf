"""Dockerfile, compose file and Makefile say the same thing; there is no docker engine to ask."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from app.settings import Settings
from index.pipelines import load_pipelines
from training.loop.command import loop
from training.loop.settings import LoopSettings

ROOT = Path(__file__).parent.parent
MAKE_TARGETS = set(re.findall(r"^([a-z0-9-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HOME = Path("/srv/shortlist")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    services: dict[str, Any] = compose["services"]
    return services


def named_volumes(service: dict[str, Any]) -> dict[str, Path]:
    """Where a service has which volume, without what is mounted from the host."""
    pairs = [mount.split(":")[:2] for mount in service["volumes"] if isinstance(mount, str)]
    return {name: Path(folder) for name, folder in pairs if not name.startswith(".")}


def test_image_is_built_with_the_makefile() -> None:
    steps = re.findall(r"^RUN make (\S+) (.*)$", DOCKERFILE, re.MULTILINE)
    assert [target for target, _ in steps] == ["install", "models"]
    assert {target for target, _ in steps} <= MAKE_TARGETS
    variables = {name for _, arguments in steps for name in re.findall(r"([A-Z]+)=", arguments)}
    assert all(re.search(rf"^{name} \?=", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in variables)
    assert "pip install" not in DOCKERFILE


def test_image_can_serve_and_learn() -> None:
    """One set of extras in all steps: what the click log in PostgreSQL takes, and what the loop does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((*extras,),) = {
        tuple(found.split(",")) for found in re.findall(r"^RUN make .* EXTRAS=(\S+)", DOCKERFILE, re.MULTILINE)
    }
    assert {"offline", "postgres", "train"} <= set(extras) <= set(project["optional-dependencies"])


def test_image_is_multi_stage_non_root_and_checks_its_health() -> None:
    assert DOCKERFILE.count("\nFROM ") == 2
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER shortlist$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert "/health" in final


def test_image_copies_only_what_exists() -> None:
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source


def test_compose_has_the_service_a_loop_a_gpu_worker_and_postgres(services: dict[str, Any]) -> None:
    assert set(services) == {"api", "loop", "worker", "postgres"}
    assert services["loop"]["profiles"] == ["loop"]
    assert services["loop"]["image"] == services["api"]["image"]
    assert services["worker"]["profiles"] == ["gpu"]
    (device,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert set(services["worker"]["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))


def test_what_the_loop_promotes_reaches_the_services(services: dict[str, Any], compose: dict[str, Any]) -> None:
    pipelines = load_pipelines(ROOT / "shortlist.yaml")
    models, index = (HOME / path.relative_to(ROOT) for path in (pipelines.models_dir, pipelines.index_dir))
    for name in ("api", "loop", "worker"):
        mounted = named_volumes(services[name])
        assert (mounted["models"], mounted["index"]) == (models, index)
        assert set(mounted) <= set(compose["volumes"])
    runs = HOME / LoopSettings.model_fields["work_dir"].default
    assert named_volumes(services["loop"])["runs"] == runs
    # The user of the image writes to all of them.
    owned = re.search(r"^RUN install -d -o shortlist (.*)$", DOCKERFILE, re.MULTILINE)
    assert owned is not None
    assert {HOME / folder for folder in owned[1].split()} == {index, runs}
    assert re.search(r"^COPY --from=build --chown=shortlist /src/var var$", DOCKERFILE, re.MULTILINE)


def test_compose_runs_a_command_of_the_loop_that_exists(services: dict[str, Any]) -> None:
    program, group, *arguments = services["loop"]["command"]
    assert (program, group, arguments[0]) == ("shortlist", "loop", "watch")
    checked = CliRunner().invoke(loop, [*arguments, "--help"])
    assert checked.exit_code == 0, checked.output
    (file,) = (mount for mount in services["loop"]["volumes"] if isinstance(mount, dict))
    assert file["target"] == str(HOME / arguments[arguments.index("--settings") + 1])
    assert "--profile loop up" in (ROOT / "docs" / "loop.md").read_text()


def test_compose_sets_only_settings_that_exist(services: dict[str, Any]) -> None:
    known = {f"SHORTLIST_{name.upper()}" for name in Settings.model_fields}
    for name in ("api", "worker"):
        assert set(services[name]["environment"]) <= known


def test_ci_runs_targets_of_the_makefile() -> None:
    targets = re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert targets == ["check", "test", "wheel-smoke", "demo-once"]
    assert set(targets) <= MAKE_TARGETS

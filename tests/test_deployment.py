"""Dockerfile, compose file and Makefile say the same thing; there is no docker engine to ask."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parent.parent
MAKE_TARGETS = set(re.findall(r"^([a-z0-9-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services: dict[str, Any] = compose["services"]
    return services


def test_image_is_built_with_the_makefile() -> None:
    steps = re.findall(r"^RUN make (\S+) (.*)$", DOCKERFILE, re.MULTILINE)
    assert [target for target, _ in steps] == ["install", "models"]
    assert {target for target, _ in steps} <= MAKE_TARGETS
    variables = {name for _, arguments in steps for name in re.findall(r"([A-Z]+)=", arguments)}
    assert all(re.search(rf"^{name} \?=", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in variables)
    assert "pip install" not in DOCKERFILE


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


def test_compose_has_the_service_a_gpu_worker_and_postgres(services: dict[str, Any]) -> None:
    assert set(services) == {"api", "worker", "postgres"}
    assert services["worker"]["profiles"] == ["gpu"]
    (device,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert set(services["worker"]["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))


def test_compose_sets_only_settings_that_exist(services: dict[str, Any]) -> None:
    known = {f"SHORTLIST_{name.upper()}" for name in Settings.model_fields}
    for name in ("api", "worker"):
        assert set(services[name]["environment"]) <= known


def test_ci_runs_targets_of_the_makefile() -> None:
    targets = re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert targets == ["check", "test", "wheel-smoke", "demo-once"]
    assert set(targets) <= MAKE_TARGETS

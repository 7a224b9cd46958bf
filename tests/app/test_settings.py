"""Settings come from the environment, when asked for."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_settings_read_the_environment_when_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTLIST_PORT", "9000")
    monkeypatch.setenv("SHORTLIST_API_KEYS", " a, b ,")
    settings = Settings()
    assert settings.port == 9000
    assert [key.get_secret_value() for key in settings.api_keys] == ["a", "b"]
    assert Settings(port=1).port == 1


def test_settings_never_change_and_never_show_keys() -> None:
    settings = Settings.model_validate({"api_keys": "secret"})
    with pytest.raises(ValidationError):
        settings.port = 2  # type: ignore[misc]
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("name", ["port", "max_documents", "request_timeout_s"])
def test_a_setting_that_cannot_be_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: -1})


def test_importing_the_service_loads_no_model_library() -> None:
    code = "import sys, app.main; print([name for name in ('torch', 'faiss', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
